"""By what number schedulers are tuned and agents are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmsched_env.simulator.metrics import summary, within_limits

if TYPE_CHECKING:
    from llmsched_env.simulator.records import Result
    from llmsched_env.slo import SLO


@dataclass(frozen=True, slots=True)
class Objective:
    """A number of `Result.summary` that is to be large or small.

    Attributes:
        name: as it is asked for.
        metric: its name in `Result.summary`.
        title: how reports call it.
        scale: from that number to what is printed.
        unit: of what is printed.
        larger_is_better: the direction.
        tpot_bound: share of the requests that must meet their TPOT target; 0: no such bound.
    """

    name: str
    metric: str
    title: str
    scale: float
    unit: str
    larger_is_better: bool
    tpot_bound: float = 0.0

    def score(self, value: float) -> float:
        """The metric, negated if small is good: the larger the better."""
        return value if self.larger_is_better else -value

    def text(self, value: float) -> str:
        """The metric as it is printed."""
        return f"{self.scale * value:.4g} {self.unit}"

    def of_run(self, result: Result, slo: SLO | None, longest: float) -> tuple[float, float]:
        """The metric of one run that was given `longest` s, and its share of requests within their TPOT target.

        It is that of `Result.summary` over the time until the last request left, if all finished. A request that did
        not finish, because it was turned away, gave up or was still there after `longest` s, has missed its limits,
        and counts with latencies of `longest`, more than any that finished. So the metric is always finite, and
        turning requests away never improves a latency. The second number is 1 where there is no bound, or no target.
        """
        rows = result.requests
        served = rows.status == "finished"
        if self.metric in _LATENCIES:
            ends, reduce = _LATENCIES[self.metric]
            value = 1e3 * float(reduce(np.where(served, rows[ends] - rows.arrival, longest)))
        elif self.metric == "slo_attainment":  # of all that arrived, so no window has to be looked at
            good = within_limits(rows, slo)
            value = float("nan") if good is None else float(good.mean())
        else:
            stop = float(rows.left.max()) if result.drained else longest
            value = summary(result, slo, (0.0, stop))[self.metric]
        within = within_limits(rows, slo, ("tpot",)) if self.tpot_bound > 0 else None
        return value, 1.0 if within is None else float(within.mean())

    def of_runs(self, runs: np.ndarray, longest: float) -> float:
        """The objective of a setting: the mean over its runs, rows (metric, share within TPOT) as `of_run` gives them.

        Where the mean share is below the bound the setting is worse than any that keeps it, the more the lower it is.
        """
        value, share = np.asarray(runs, dtype=float).mean(axis=0).tolist()
        if share < self.tpot_bound:
            missing = 1 + self.tpot_bound - share
            return -missing if self.larger_is_better else 1e3 * longest * missing
        return value

    def needs(self) -> str:
        """The targets that requests must have for it: "any", "tpot" or ""."""
        if self.tpot_bound > 0:
            return "tpot"
        return "any" if self.metric in ("slo_attainment", "request_goodput") else ""


def _p99(seconds: np.ndarray) -> float:
    return float(np.percentile(seconds, 99))


_LATENCIES = {"mean_e2el_ms": ("finish", np.mean), "p99_ttft_ms": ("first_token", _p99)}


OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective("slo_attainment", "slo_attainment", "SLO met", 1e2, "%", larger_is_better=True),
        Objective("mean_e2el", "mean_e2el_ms", "Mean E2E latency", 1e-3, "s", larger_is_better=False),
        Objective("p99_ttft", "p99_ttft_ms", "p99 TTFT with TPOT met", 1e-3, "s", False, tpot_bound=0.99),
        Objective("goodput", "request_goodput", "Goodput", 1, "requests/s", larger_is_better=True),
        Objective("throughput", "output_throughput", "Output", 1, "tokens/s", larger_is_better=True),
    )
}
"""What schedulers can be tuned for, by name; `docs/tuning.md` defines each."""
