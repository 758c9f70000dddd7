"""By how much an agent beats others on the same test requests: shares of the cost saved, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agents.learning_curve import OWN_ACTIONS, STATIC_BEST
from llmsched_env.evaluation import Comparison
from llmsched_env.evaluation.benchmark.statistics import Interval, mean_over_cells, reduction, stratified
from llmsched_env.evaluation.cases import load_text
from llmsched_env.objectives import Objective

TUNED = " (tuned)"
"""Ends the name of a baseline that was tuned in the same run."""
_NO_DIFFERENCE: Literal["not significantly different"] = "not significantly different"
_DOUBT = f" ({_NO_DIFFERENCE})"


@dataclass(frozen=True, slots=True)
class Costs:
    """What schedulers cost on the same runs: missed requests, or seconds of mean latency.

    Attributes:
        objective: what was measured.
        by_load: f8[seeds] by load, as text, and name.
        groups: loads that are counted together, by what they are called; the first is what a verdict is about.
    """

    objective: Objective
    by_load: Mapping[str, Mapping[str, np.ndarray]]
    groups: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, comparison: Comparison, objective: Objective) -> Costs:
        """Those of a comparison on one workload."""
        found, sustained = {}, []
        for _, load, cells in comparison.by_workload_and_load():
            found[load_text(load)] = {cell.scheduler: _cost(cell.metrics, objective) for cell in cells}
            if not isinstance(load, str) and load < 1:
                sustained.append(load_text(load))
        groups = {_loads_text(loads): tuple(loads) for loads in (sustained, list(found)) if loads}
        return cls(objective, found, groups)

    @property
    def names(self) -> list[str]:
        """All schedulers."""
        return list(next(iter(self.by_load.values())))

    def pooled(self, name: str, loads: Sequence[str] = ()) -> np.ndarray:
        """f8[seeds]: the sum over some loads, by default over all."""
        return np.asarray(np.sum([self.by_load[load][name] for load in loads or self.by_load], axis=0))

    def best_baseline(self, agents: Sequence[str], loads: Sequence[str] = ()) -> str:
        """The best registered baseline: of the tuned ones if there are any, by the test requests themselves."""
        names = [name for name in self.names if name not in (*agents, *OWN_ACTIONS)]
        tuned = [name for name in names if name.endswith(TUNED)]
        return min(tuned or names, key=lambda name: float(self.pooled(name, loads).mean()))

    def opponents(self, agents: Sequence[str], loads: Sequence[str] = ()) -> dict[str, str]:
        """What an agent is to beat, with what sentences call it: the best baseline, and the best constant action."""
        found = {self.best_baseline(agents, loads): "the best baseline"}
        return found | ({STATIC_BEST: "the best constant action"} if STATIC_BEST in self.names else {})

    def saved(self, own: str, other: str, loads: Sequence[str] = ()) -> Interval:
        """Share of the other's cost that is saved at some loads together, paired by seed; nan ends for a single run."""
        return saved_share(self.pooled(own, loads), self.pooled(other, loads))

    def verdict(self, agent: str, agents: Sequence[str] = ()) -> str:
        """On an agent in one sentence, with what it rests on."""
        clauses = []
        for where, loads in self.groups.items():
            rivals = self.opponents([agent, *agents], loads)
            texts = [
                f"{amount_text(share := self.saved(agent, name, loads), self.objective)} than {title}, {name}"
                f"{_DOUBT if outcome(share) == _NO_DIFFERENCE else ''}"
                for name, title in rivals.items()
            ]
            clauses.append(f"at {where} it {' and '.join(texts)}")
        clauses[0] = clauses[0].replace(" it ", f" the {agent} ", 1)
        seeds = len(self.pooled(agent))
        basis = f"{seeds} test seeds, paired 95 % intervals" if seeds > 1 else "One trace, so no intervals"
        text = "; ".join(clauses)
        return f"{text[0].upper()}{text[1:]}. {basis}."


def saved_share(own: np.ndarray, other: np.ndarray) -> Interval:
    """Share of the other's cost that is saved, f8[seeds] each; the ends are nan for a single run."""
    if len(own) < 2:
        value = float(reduction(own, other, np.ones((1, 1)))[0])
        return Interval(value, np.nan, np.nan)
    return stratified([(own, other)], reduction, mean_over_cells)


def amount_text(share: Interval, objective: Objective) -> str:
    """Such as "misses 31 % [24, 37] fewer requests"."""
    less, more = ("fewer", "more") if objective.larger_is_better else ("lower", "higher")
    word = less if share.value >= 0 else more
    if share.value < 0:
        share = Interval(-share.value, -share.high, -share.low)
    text = (
        share_text(share).removeprefix("+").replace(" [", " % [")
        if share.low == share.low
        else f"{_number(share.value)} %"
    )
    if objective.larger_is_better:
        return f"misses {text} {word} requests"
    return f"has a {objective.title} {text} {word}"


def share_text(share: Interval) -> str:
    """In percent, above 0 where it is better, with its interval."""
    value = f"{'+' if share.value > 0 else ''}{_number(share.value)}"
    return value if np.isnan(share.low) else f"{value} [{_number(share.low)}, {_number(share.high)}]"


def _number(share: float) -> str:
    text = f"{100 * share:.{0 if abs(100 * share) >= 9.95 else 1}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def outcome(share: Interval) -> Literal["better", "worse", "not significantly different"]:
    """Whether the interval leaves a doubt."""
    if np.isnan(share.low) or share.low <= 0 <= share.high:
        return _NO_DIFFERENCE
    return "better" if share.low > 0 else "worse"


def _cost(metrics: Mapping[str, Any], objective: Objective) -> np.ndarray:
    values = np.array(metrics[objective.metric], float)
    if objective.larger_is_better:
        return np.asarray((1.0 - values) * np.array(metrics["num_requests"], float))
    return np.asarray(objective.scale * values)


def _loads_text(loads: Sequence[str]) -> str:
    if len(loads) == 1:
        return f"load {loads[0]}"
    return f"loads {', '.join(loads[:-1])} and {loads[-1]}"
