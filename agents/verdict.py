"""By how much an agent beats others on the same test requests: shares of the cost saved, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmsched_env.evaluation import Comparison
from llmsched_env.evaluation.benchmark.statistics import Interval, mean_over_cells, reduction, stratified
from llmsched_env.evaluation.cases import load_text
from llmsched_env.objectives import Objective

POOLED = "all loads"
TUNED = " (tuned)"
"""Ends the name of a baseline that was tuned in the same run."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What schedulers cost on the same runs: missed requests, or seconds of mean latency.

    Attributes:
        objective: what was measured.
        by_place: f8[seeds] by place (such as "load 0.8") and name.
    """

    objective: Objective
    by_place: Mapping[str, Mapping[str, np.ndarray]]

    @classmethod
    def of(cls, comparison: Comparison, objective: Objective) -> Costs:
        """Those of a comparison: at each load, and at all together."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for workload, load, cells in comparison.by_workload_and_load():
            place = (
                f"{workload}, load {load_text(load)}" if _several_workloads(comparison) else f"load {load_text(load)}"
            )
            found[place] = {cell.scheduler: _cost(cell.metrics, objective) for cell in cells}
        if len(found) > 1:
            names = comparison.schedulers
            found[POOLED] = {name: np.sum([rows[name] for rows in found.values()], axis=0) for name in names}
        return cls(objective, found)

    @property
    def pooled(self) -> Mapping[str, np.ndarray]:
        """Over all places together."""
        return list(self.by_place.values())[-1]

    @property
    def noun(self) -> str:
        """What is counted."""
        return "requests missed" if self.objective.larger_is_better else self.objective.title

    def best(self, names: Sequence[str]) -> str:
        """The name of least pooled cost."""
        return min(names, key=lambda name: float(self.pooled[name].mean()))

    def best_baseline(self, own: Sequence[str]) -> str:
        """The best registered baseline: of the tuned ones if there are any, by the test requests themselves.

        Args:
            own: names that are no baselines: agents, and constant actions.
        """
        names = [name for name in self.pooled if name not in own]
        return self.best([name for name in names if name.endswith(TUNED)] or names)

    def saved(self, own: str, other: str, place: str | None = None) -> Interval:
        """Share of the other's cost that is saved, paired by seed; the interval is nan for a single run."""
        rows = self.pooled if place is None else self.by_place[place]
        return saved_share(rows[own], rows[other])

    def sentence(self, own: str, other: str) -> str:
        """By how much one is better than another, in all places together."""
        places = [place for place in self.by_place if place != POOLED]
        where = f"pooled over {', '.join(places)}" if len(places) > 1 else f"at {places[0]}"
        return f"{amount_text(self.saved(own, other), self.objective)} than {other}, {where}"


def saved_share(own: np.ndarray, other: np.ndarray) -> Interval:
    """Share of the other's cost that is saved, f8[seeds] each; the interval is nan for a single run."""
    if len(own) < 2:
        value = float(reduction(own, other, np.ones((1, 1)))[0])
        return Interval(value, np.nan, np.nan)
    return stratified([(own, other)], reduction, mean_over_cells)


def amount_text(share: Interval, objective: Objective) -> str:
    """Such as "misses 31.0 % fewer requests [24.1, 37.2]"."""
    value, ends = share.value, (share.low, share.high)
    less, more = ("fewer", "more") if objective.larger_is_better else ("lower", "higher")
    if value < 0:
        value, ends = -value, (-ends[1], -ends[0])
    word = less if share.value >= 0 else more
    interval = "" if np.isnan(ends[0]) else f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
    if objective.larger_is_better:
        return f"misses {100 * value:.1f} %{interval} {word} requests"
    return f"has a {objective.title.lower()} {100 * value:.1f} %{interval} {word}"


def share_text(share: Interval) -> str:
    """In percent, above 0 where it is better, with its interval."""
    if np.isnan(share.low):
        return f"{100 * share.value:+.1f}"
    return f"{100 * share.value:+.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def outcome(share: Interval) -> str:
    """Whether the interval leaves a doubt."""
    if np.isnan(share.low) or share.low <= 0 <= share.high:
        return "not significantly different"
    return "better" if share.low > 0 else "worse"


def _cost(metrics: Mapping[str, Sequence[float]], objective: Objective) -> np.ndarray:
    values = np.array(metrics[objective.metric], float)
    if objective.larger_is_better:
        return np.asarray((1.0 - values) * np.array(metrics["num_requests"], float))
    return np.asarray(objective.scale * values)


def _several_workloads(comparison: Comparison) -> bool:
    return len({workload for workload, _, _ in comparison.by_workload_and_load()}) > 1
