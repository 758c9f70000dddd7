"""Paired differences of an agent from other schedulers on the same test requests, in sentences."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmsched_env.evaluation import Comparison, ComparisonCell
from llmsched_env.evaluation.cases import load_text
from llmsched_env.evaluation.table import format_interval
from llmsched_env.intervals import paired_interval
from llmsched_env.objectives import OBJECTIVES, Objective
from llmsched_env.results.records import Result

BLOCKS = 10
"""Spans of time that serve as replications where there is only one trace."""

_JUDGED = ("mean_e2el", "slo_attainment")
Outcome = Literal["better", "worse", "not significantly different"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The agent's metric minus another scheduler's, with the half width of its 95 % interval.

    Attributes:
        outcome: "not significantly different" if the interval contains 0.
        mean: as printed, in the objective's unit.
        half_width: of the mean.
    """

    outcome: Outcome
    mean: float
    half_width: float

    def text(self, objective: Objective) -> str:
        """The difference with its interval and unit."""
        mean, half_width = format_interval(self.mean, self.half_width)
        return f"{'+' if self.mean > 0 else ''}{mean} ±{half_width} {objective.unit}"


def difference(
    agent: ComparisonCell, other: ComparisonCell, comparison: Comparison, objective: Objective
) -> Difference:
    """Compare two cells of the same requests, seed by seed; on a single trace span by span.

    Consecutive spans of one trace are not independent, so their interval is rough.
    """
    if len(agent.seeds) > 1:
        values = [list(cell.metrics[objective.metric]) for cell in (agent, other)]
    else:
        values = [_by_span(cell, comparison, objective.metric) for cell in (agent, other)]
    mean, half_width = paired_interval(*values)
    if math.isnan(half_width) or abs(mean) <= half_width:
        outcome: Outcome = "not significantly different"
    else:
        outcome = "better" if objective.score(mean) > 0 else "worse"
    return Difference(outcome, objective.scale * mean, objective.scale * half_width)


def differences_text(comparison: Comparison, agent: str = "agent") -> str:
    """For each objective a sentence on which schedulers the agent is better or worse than, and the numbers.

    Args:
        comparison: the test runs.
        agent: name of the agent in it.
    """
    return "\n\n".join(_paragraph(comparison, agent, OBJECTIVES[name]) for name in _JUDGED)


def _paragraph(comparison: Comparison, agent: str, objective: Objective) -> str:
    blocks = list(comparison.by_workload_and_load())
    workloads = {workload for workload, _, _ in blocks}
    found: dict[str, dict[str, Difference]] = {}  # by place and opponent
    values = {}
    for workload, load, cells in blocks:
        place = f"load {load_text(load)}" if len(workloads) == 1 else f"{workload} at load {load_text(load)}"
        mine = next(cell for cell in cells if cell.scheduler == agent)
        values[place] = objective.scale * mine.interval(objective.metric)[0]
        found[place] = {c.scheduler: difference(mine, c, comparison, objective) for c in cells if c is not mine}
    seeds = len(blocks[0][2][0].seeds)
    basis = f"paired over {seeds} test seeds" if seeds > 1 else f"rough, from {BLOCKS} spans of one trace"
    lines = [
        f"{objective.title}: the agent is {_sentence(found)}.",
        f"  Differences to the others (95 % intervals, {basis}):",
    ]
    for place, differences in found.items():
        texts = ", ".join(f"{name} {d.text(objective)}" for name, d in differences.items())
        lines.append(f"  {place}, agent {values[place]:.4g} {objective.unit}: {texts}")
    return "\n".join(lines)


def _sentence(found: dict[str, dict[str, Difference]]) -> str:
    """Schedulers with the same outcomes share a clause."""
    fates: dict[str, list[str]] = {}
    for name in next(iter(found.values())):
        places: dict[Outcome, list[str]] = {}
        for place, differences in found.items():
            places.setdefault(differences[name].outcome, []).append(place)
        if len(places) == 1:
            fate = f"{_PHRASES[next(iter(places))]} {{}}" + (" everywhere" if len(found) > 1 else "")
        else:
            fate = f"compared with {{}} {', '.join(f'{outcome} at {_listed(p)}' for outcome, p in places.items())}"
        fates.setdefault(fate, []).append(name)
    return "; ".join(fate.format(_listed(names)) for fate, names in fates.items())


_PHRASES: dict[Outcome, str] = {
    "better": "better than",
    "not significantly different": "not significantly different from",
    "worse": "worse than",
}


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _by_span(cell: ComparisonCell, comparison: Comparison, metric: str) -> list[float]:
    """The metric of each span; spans hold equally many arrivals."""
    rows, no_gaps = cell.requests, np.zeros((0, 3))
    result = Result(
        requests=rows,
        batches=None,
        batch_entries=None,
        token_gaps=no_gaps,
        end=cell.end,
        stalled_since=math.nan,
        scheduler=cell.scheduler,
        workload=cell.workload,
        seed=cell.seeds[0],
        engine=comparison.engine,
    )
    starts = rows.arrival[np.linspace(0, len(rows), BLOCKS, endpoint=False).astype(int)].tolist()
    windows = zip(starts, [*starts[1:], math.nextafter(cell.end, math.inf)], strict=True)
    return [result.summary(comparison.slo, window)[metric] for window in windows if window[0] < window[1]]
