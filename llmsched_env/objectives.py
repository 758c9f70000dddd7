"""The table of objectives: the numbers by which schedulers are tuned and judged, and trained policies chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llmsched_env.results.metrics import summary, within_limits
from llmsched_env.results.records import NetworkResult, Result
from llmsched_env.slo import SLO


@dataclass(frozen=True, slots=True)
class Objective:
    """A number of `Result.summary` to be maximised or minimised.

    Attributes:
        name: how users ask for it.
        metric: its name in `Result.summary`.
        meaning: what it measures, in one sentence.
        title: its name in reports.
        scale: from the metric to the printed number.
        unit: of the printed number.
        larger_is_better: the direction.
        tpot_bound: share of the requests that must meet their TPOT target; 0: no such bound.
    """

    name: str
    metric: str
    meaning: str
    title: str
    scale: float
    unit: str
    larger_is_better: bool
    tpot_bound: float = 0.0

    def score(self, value: float) -> float:
        """The metric, negated if smaller is better: a larger score is always better."""
        return value if self.larger_is_better else -value

    def text(self, value: float) -> str:
        """The metric as it is printed."""
        return f"{self.scale * value:.4g} {self.unit}"

    def of_run(self, result: Result | NetworkResult, slo: SLO | None, longest: float) -> tuple[float, float]:
        """The metric of one run, and its share of requests within their TPOT target.

        If all requests finished, the metric is that of `Result.summary` up to the time at which the last one left. A
        request that did not finish (rejected, timed out, or still present after `longest` s) has missed its limits and
        counts with latencies of `longest`, more than any finished request has. So the metric is always finite, and
        rejecting requests never improves a latency.

        Args:
            result: the run; of a network only for objectives of single requests.
            slo: limits for all requests; None: each request's own.
            longest: s after which the run was stopped.

        Returns:
            (metric, share); the share is 1 if the objective has no bound on TPOT or no request has a TPOT target.
        """
        rows = result.requests
        finished = rows.status == "finished"
        if self.metric in _LATENCIES:
            column, reduce = _LATENCIES[self.metric]
            value = 1e3 * float(reduce(np.where(finished, rows[column] - rows.arrival, longest)))
        elif self.metric == "slo_attainment":  # of all requests that arrived, so no window is needed
            value = share_within_limits(rows, slo)
        elif isinstance(result, Result):
            stop = float(rows.left.max()) if result.drained else longest
            value = summary(result, slo, (0.0, stop))[self.metric]
        else:
            raise ValueError(f"objective {self.name!r} must be asked of a run on one engine, got a network")
        share = share_within_limits(rows, slo, ("tpot",)) if self.tpot_bound > 0 else math.nan
        return value, 1.0 if math.isnan(share) else share

    def of_runs(self, runs: np.ndarray | Sequence[tuple[float, float]], longest: float) -> float:
        """The objective of one setting over several runs.

        It is the mean of the metric. If the mean share within TPOT is below the bound, it is worse than any value that
        keeps the bound, and the worse the lower the share is.

        Args:
            runs: f8[n, 2], a row (metric, share within TPOT) for each run, see `of_run`.
            longest: s after which the runs were stopped.
        """
        value, share = np.asarray(runs, dtype=float).mean(axis=0).tolist()
        if share < self.tpot_bound:
            missing = 1 + self.tpot_bound - share
            return float(-missing if self.larger_is_better else 1e3 * longest * missing)
        return float(value)

    def needs(self) -> str:
        """The targets that requests must have for this objective: "any", "tpot" or "" (none)."""
        if self.tpot_bound > 0:
            return "tpot"
        return "any" if self.metric in ("slo_attainment", "request_goodput") else ""


def share_within_limits(
    requests: np.recarray, slo: SLO | None = None, kinds: Sequence[str] = ("ttft", "tpot", "e2el")
) -> float:
    """Share of the requests that finished within their limits, see `within_limits`; nan if there are no limits."""
    good = within_limits(requests, slo, kinds)
    return math.nan if good is None else float(good.mean())


def _p99(seconds: np.ndarray) -> float:
    return float(np.percentile(seconds, 99))


_LATENCIES: dict[str, tuple[str, Callable[[np.ndarray], float]]] = {
    "mean_e2el_ms": ("finish", np.mean),
    "p99_ttft_ms": ("first_token", _p99),
}

_TABLE = (
    Objective(
        name="slo_attainment",
        metric="slo_attainment",
        meaning="share of the requests that finish within all of their limits",
        title="SLO met",
        scale=1e2,
        unit="%",
        larger_is_better=True,
    ),
    Objective(
        name="mean_e2el",
        metric="mean_e2el_ms",
        meaning="mean time from arrival to the last output token",
        title="Mean E2E latency",
        scale=1e-3,
        unit="s",
        larger_is_better=False,
    ),
    Objective(
        name="p99_ttft",
        metric="p99_ttft_ms",
        meaning="99th percentile of the time to first token, with 99 % of the requests within their TPOT target",
        title="p99 TTFT with TPOT met",
        scale=1e-3,
        unit="s",
        larger_is_better=False,
        tpot_bound=0.99,
    ),
    Objective(
        name="goodput",
        metric="request_goodput",
        meaning="rate of the requests that finish within all of their limits",
        title="Goodput",
        scale=1,
        unit="requests/s",
        larger_is_better=True,
    ),
    Objective(
        name="throughput",
        metric="output_throughput",
        meaning="rate of the output tokens of finished requests",
        title="Output",
        scale=1,
        unit="tokens/s",
        larger_is_better=True,
    ),
)

OBJECTIVES = {objective.name: objective for objective in _TABLE}
"""All objectives by name; docs/tuning.md explains them."""
