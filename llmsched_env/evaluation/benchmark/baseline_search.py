"""The baselines that a policy is compared with.

For each cell and objective: the best tuned baseline (all are screened with default parameters, the best of them tuned),
and the best setting of the static index policy, chosen from given groups of settings. For all cells together: the one
static scheduler that is best on average.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from llmsched_env.evaluation.benchmark.cell_runs import BenchmarkCell, EngineRuns
from llmsched_env.evaluation.cases import load_text
from llmsched_env.evaluation.run_cache import (
    describe,
    digest_of,
    distinct_seeds,
    file_name,
    scheduler_digest,
    source_of,
)
from llmsched_env.evaluation.search import search
from llmsched_env.evaluation.tuning import Tuned, tunable, tune
from llmsched_env.files import cached, read_object, write_json
from llmsched_env.objectives import OBJECTIVES
from llmsched_env.simulator.scheduler import Scheduler

TUNED_PER_CELL = {"slo_attainment": 3, "mean_e2el": 3, "p99_ttft": 2}  # the best with default parameters
STATIC_CANDIDATES = 20  # tuned settings among the candidates for the best static scheduler
_SCHEDULER_FIELDS = ("best", "best_four_knobs", "default")  # of a search result
_PERFECT = {"slo_attainment": 1.0}
_TIE_BREAK_SEEDS = 9  # for schedulers that are perfect on the tuning seeds


@dataclass(frozen=True, slots=True)
class TuningPlan:
    """Which baselines are tuned, and how hard.

    Attributes:
        schedulers: the baselines, by name.
        always: names of the baselines that are tuned for SLO attainment whatever their defaults reach.
        index: groups of settings of the static index policy, by objective and name of the group. The first setting of
            each group has default parameters.
        seeds: tuning seeds.
        trials: settings of each scheduler that is tuned, by objective.
        four_knobs: names of the baselines that stay within the four knobs of the policy; the best of them is tuned
            unless it is perfect.
    """

    schedulers: Mapping[str, Scheduler]
    always: Sequence[str]
    index: Mapping[str, Mapping[str, Sequence[Scheduler]]]
    seeds: Sequence[int]
    trials: Mapping[str, int]
    four_knobs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The best baselines of a cell for an objective, by values on the tuning seeds.

    Attributes:
        best: the best baseline with its best parameters.
        value: its objective.
        best_four_knobs: the best baseline within four knobs; of all baselines if the plan names none.
        best_four_knobs_value: its objective.
        default: the best baseline with default parameters.
        defaults: objective of every baseline with default parameters, by name.
        values: objective of every tuned baseline with its best parameters, by name.
        index: the best setting of the static index policy in each group, by name of the group.
        index_values: their objectives.
    """

    best: Scheduler
    value: float
    best_four_knobs: Scheduler
    best_four_knobs_value: float
    default: Scheduler
    defaults: dict[str, float]
    values: dict[str, float]
    index: dict[str, Scheduler]
    index_values: dict[str, float]

    @property
    def default_value(self) -> float:
        """Objective of the best baseline with default parameters."""
        return self.defaults[self.default.name]

    @property
    def was_tuned(self) -> bool:
        """Whether any baseline was tuned; none is if a default is perfect."""
        return bool(self.values)

    def record(self) -> dict[str, Any]:
        """The result as JSON."""
        record = {name: getattr(self, name) for name in self.__slots__}
        record |= {name: _values_of(record[name]) for name in _SCHEDULER_FIELDS}
        return record | {"index": {name: _values_of(setting) for name, setting in self.index.items()}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], schedulers: Mapping[str, Scheduler]) -> Self:
        """The result from JSON, with schedulers by name."""
        bound: dict[str, Any] = {name: _bound(record[name], schedulers) for name in _SCHEDULER_FIELDS}
        bound["index"] = {name: _bound(setting, schedulers) for name, setting in record["index"].items()}
        return cls(**{**record, **bound})


class _Candidate(NamedTuple):
    """A baseline with parameters, and its objective on the tuning seeds."""

    scheduler: Scheduler
    value: float


def search_baselines(
    cell: BenchmarkCell, objective: str, plan: TuningPlan, folder: Path, say: Callable[[str], None] = lambda text: None
) -> SearchResult:
    """Find the best baselines of a cell for an objective; a finished search is read from its file.

    If a baseline with default parameters is perfect (it meets all targets), only the best one within four knobs is
    tuned. Of several perfect ones the best on further tuning seeds is taken.

    Args:
        cell: the cell.
        objective: a name of `OBJECTIVES`.
        plan: which baselines, and how hard they are tuned.
        folder: of the benchmark.
        say: called with a description of each step.
    """
    path = folder / "found" / f"{_name(cell, objective, plan)}.json"
    named = {**plan.schedulers, **{group[0].name: group[0] for group in plan.index[objective].values()}}
    return cached(
        path,
        read=lambda path: SearchResult.from_record(read_object(path), named),
        compute=lambda: _search(cell, objective, plan, folder, say),
        write=lambda result, path: write_json(path, result.record(), indent=1),
    )


def _search(
    cell: BenchmarkCell, objective: str, plan: TuningPlan, folder: Path, say: Callable[[str], None]
) -> SearchResult:
    goal, runs = OBJECTIVES[objective], EngineRuns(cell, plan.seeds, folder)
    say("defaults")
    defaults = dict(zip(plan.schedulers, runs.values(list(plan.schedulers.values()), objective), strict=True))
    ranked = _ranked(defaults, cell, objective, plan, folder)
    within_four_knobs = [name for name in ranked if name in plan.four_knobs] or ranked
    best = _Candidate(plan.schedulers[ranked[0]], defaults[ranked[0]])
    best_four_knobs = _Candidate(plan.schedulers[within_four_knobs[0]], defaults[within_four_knobs[0]])
    tuned_values: dict[str, float] = {}
    for name in _to_tune(ranked, within_four_knobs, defaults, objective, plan):
        say(f"tuning {name}")
        tuned = _tuned(plan.schedulers[name], cell, objective, plan, folder)
        tuned_values[name] = tuned.value
        candidate = _Candidate(tuned.scheduler, tuned.value)
        if goal.score(candidate.value) > goal.score(best.value):
            best = candidate
        if name in within_four_knobs and goal.score(candidate.value) > goal.score(best_four_knobs.value):
            best_four_knobs = candidate
    index: dict[str, Scheduler] = {}
    index_values: dict[str, float] = {}
    for name, settings in plan.index[objective].items():
        say(name)
        reached = runs.values(settings, objective)
        k = max(range(len(settings)), key=lambda k: goal.score(reached[k]))
        index[name], index_values[name] = settings[k], reached[k]
    return SearchResult(
        best=best.scheduler,
        value=best.value,
        best_four_knobs=best_four_knobs.scheduler,
        best_four_knobs_value=best_four_knobs.value,
        default=plan.schedulers[ranked[0]],
        defaults=defaults,
        values=tuned_values,
        index=index,
        index_values=index_values,
    )


def best_static(
    objective: str,
    cells: Sequence[BenchmarkCell],
    found: Sequence[SearchResult],
    defaults: Sequence[Scheduler],
    seeds: Sequence[int],
    folder: Path,
) -> Scheduler:
    """The scheduler with the best mean over all cells on the tuning seeds: what a user could choose without tuning.

    The mean of a latency is the geometric mean, as latencies differ by orders of magnitude between cells. Candidates
    are all defaults, and the tuned baselines of cells that gained most over the best default of their cell.

    Args:
        objective: a name of `OBJECTIVES`.
        cells: the cells.
        found: the result of `search_baselines` for each.
        defaults: baselines with default parameters.
        seeds: tuning seeds.
        folder: of the benchmark.
    """
    candidates = [*defaults, *_tuned_candidates(objective, found)]
    scores = np.array([_scores(objective, cell, candidates, seeds, folder) for cell in cells])
    return candidates[int(np.argmax(scores.mean(axis=0)))]


def _tuned_candidates(objective: str, found: Sequence[SearchResult]) -> list[Scheduler]:
    goal = OBJECTIVES[objective]
    by_gain = sorted(
        (outcome for outcome in found if outcome.best.values),
        key=lambda outcome: (
            _score(objective, goal.score(outcome.value)) - _score(objective, goal.score(outcome.default_value))
        ),
        reverse=True,
    )
    distinct: Mapping[str, Scheduler] = {describe(outcome.best): outcome.best for outcome in reversed(by_gain)}
    return list(distinct.values())[::-1][:STATIC_CANDIDATES]


def _scores(
    objective: str, cell: BenchmarkCell, schedulers: Sequence[Scheduler], seeds: Sequence[int], folder: Path
) -> list[float]:
    goal = OBJECTIVES[objective]
    return [
        _score(objective, goal.score(value)) for value in EngineRuns(cell, seeds, folder).values(schedulers, objective)
    ]


def _score(objective: str, score: float) -> float:
    return score if OBJECTIVES[objective].larger_is_better else -float(np.log(-score))


def _ranked(
    values: Mapping[str, float], cell: BenchmarkCell, objective: str, plan: TuningPlan, folder: Path
) -> list[str]:
    """Names by their values on the tuning seeds, the best first.

    Perfect ones are ordered by further seeds, and if these are equal by the 99th percentile of the TTFT: on a few seeds
    a simple scheduler can be perfect by chance.
    """
    goal, ttft = OBJECTIVES[objective], OBJECTIVES["p99_ttft"]
    perfect = [name for name, value in values.items() if value == _PERFECT.get(objective)]
    tie_break = dict.fromkeys(values, (0.0, 0.0))
    if len(perfect) > 1:
        first = max(plan.seeds) + 1
        more = EngineRuns(cell, range(first, first + _TIE_BREAK_SEEDS), folder)
        schedulers = [plan.schedulers[name] for name in perfect]
        found = zip(more.values(schedulers, objective), more.values(schedulers, "p99_ttft"), strict=True)
        tie_break |= {name: (goal.score(a), ttft.score(b)) for name, (a, b) in zip(perfect, found, strict=True)}
    return sorted(values, key=lambda name: (goal.score(values[name]), tie_break[name]), reverse=True)


def _to_tune(
    ranked: Sequence[str],
    within_four_knobs: Sequence[str],
    values: Mapping[str, float],
    objective: str,
    plan: TuningPlan,
) -> list[str]:
    """The baselines to tune: the best defaults, those that always are, and the best within four knobs."""
    perfect = _PERFECT.get(objective)
    chosen: set[str] = set()
    if values[ranked[0]] != perfect:
        always = plan.always if objective == "slo_attainment" else ()
        chosen |= {*_distinct(ranked, values)[: TUNED_PER_CELL[objective]], *always}
    if values[within_four_knobs[0]] != perfect:
        chosen.add(within_four_knobs[0])
    return [name for name in plan.schedulers if name in chosen and tunable(plan.schedulers[name])]


def _distinct(ranked: Sequence[str], value_of: Mapping[str, float]) -> list[str]:
    """Names without those of equal value: without predictions several schedulers are the same rule."""
    return list({value_of[name]: name for name in reversed(ranked)}.values())[::-1]


def _tuned(scheduler: Scheduler, cell: BenchmarkCell, objective: str, plan: TuningPlan, folder: Path) -> Tuned:
    return tune(
        scheduler,
        cell.workload,
        cell.engine,
        objective,
        load=cell.load,
        seeds=plan.seeds,
        trials=plan.trials[objective],
        folder=folder,
        progress=False,
    )


def _name(cell: BenchmarkCell, objective: str, plan: TuningPlan) -> str:
    settings = [(name, [scheduler_digest(s) for s in group]) for name, group in plan.index[objective].items()]
    spaces = [sorted((name, param.tune) for name, param in tunable(s).items()) for s in plan.schedulers.values()]
    code = [source_of(part) for part in (search_baselines, search, tune, type(OBJECTIVES[objective]))]
    requests = distinct_seeds(cell.workload, plan.seeds, cell.engine)
    what = (
        [scheduler_digest(scheduler) for scheduler in plan.schedulers.values()],
        settings,
        spaces,
        plan.always,
        plan.four_knobs,
        plan.trials[objective],
        requests,
        cell.engine,
        cell.load,
    )
    return file_name(cell.site, load_text(cell.load), objective, digest_of(code, *what))


def _values_of(scheduler: Scheduler) -> dict[str, Any]:
    return {"name": scheduler.name, "values": dict(scheduler.values)}


def _bound(record: Mapping[str, Any], schedulers: Mapping[str, Scheduler]) -> Scheduler:
    scheduler = schedulers[record["name"]]
    return scheduler(**record["values"]) if record["values"] else scheduler
