"""The most users in a closed loop that a fleet serves within limits, found by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from llmsched_env.evaluation.cases import TEST_SEEDS
from llmsched_env.intervals import mean_interval
from llmsched_env.machine.config import EngineConfig
from llmsched_env.planning.demand import demand_on
from llmsched_env.results.metrics import latencies_by_row
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.validation import check_choice, check_integer, check_number
from llmsched_env.workloads import ClosedLoop

WARM_UP = 0.25
"""Share of the time in which the fleet fills up: requests that arrive in it do not count."""

STATISTICS = {"mean": None, "median": 50, "p90": 90, "p95": 95, "p99": 99}
LATENCIES = ("ttft", "tpot", "e2el")
LIMITS = tuple(f"{statistic}_{latency}" for latency in LATENCIES for statistic in STATISTICS)
"""What a limit can be set on, all in seconds."""


@dataclass(frozen=True, slots=True)
class UserPoint:
    """Simulations of one number of users.

    Attributes:
        users: number of users.
        values: by limit, one value in s for each seed; inf where requests never came to it.
    """

    users: int
    values: Mapping[str, tuple[float, ...]]

    def mean_within(self, limits: Mapping[str, float]) -> bool:
        """Whether the means over seeds are within the limits."""
        return all(float(np.mean(self.values[name])) <= limit for name, limit in limits.items())

    def verdict(self, limits: Mapping[str, float]) -> bool | None:
        """Whether it is within the limits; None if one of them is within the 95 % interval of its number."""
        decided = []
        for name, limit in limits.items():
            mean, half = mean_interval(self.values[name])
            half = 0.0 if math.isnan(half) else half
            decided.append(True if mean + half <= limit else None if mean - half <= limit else False)
        return False if False in decided else None if None in decided else True


@dataclass(slots=True)
class MostUsers:
    """The most users that a fleet serves within limits.

    Attributes:
        limits: by name, s.
        users: the most for which the means over seeds are within the limits; 0: none.
        at_least: the most that are within them at 95 % confidence.
        at_most: the most that may be; more are not, at 95 % confidence.
        seconds: that each run lasts.
        points: the simulations, by number of users.
        warnings: why the answer is to be doubted.
    """

    limits: Mapping[str, float]
    users: int
    at_least: int
    at_most: int
    seconds: float
    points: dict[int, UserPoint] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """The answer, and the numbers of the run with so many users."""
        row: dict[str, Any] = {"users": self.users, "users_at_least": self.at_least, "users_at_most": self.at_most}
        row |= {"seconds": self.seconds, "warnings": self.warnings}
        if self.users in self.points:
            for name, values in self.points[self.users].values.items():
                row[name], row[f"{name}_half_width"] = mean_interval(values)
        return row


def most_users(
    engines: Sequence[EngineConfig],
    scheduler: Scheduler,
    loop: ClosedLoop,
    router: Router,
    limits: Mapping[str, float],
    seeds: int = 5,
    most_seeds: int = 20,
    most: int = 100_000,
    report: Callable[[UserPoint], None] | None = None,
) -> MostUsers:
    """Find the most users that a fleet serves within limits.

    The number is doubled until it is too large, then found by bisection, under the assumption that latencies grow with
    it. A trace begins at another request with each seed. While a limit is within the 95 % interval of its number, seeds
    are added, up to `most_seeds`. Requests that arrive in the first quarter of the time do not count, since the fleet
    fills up.

    Args:
        engines: the fleet.
        scheduler: of every engine.
        loop: what the users do, with a duration; its own number of users does not count.
        router: binds requests to engines.
        limits: by name of `LIMITS`, s, such as {"p95_ttft": 0.5}.
        seeds: initial number of seeds.
        most_seeds: largest number of seeds.
        most: where the search ends.
        report: called with each simulated point.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    check_limits(limits)
    check_integer("seeds", seeds, at_least=1)
    check_integer("most_seeds", most_seeds, at_least=seeds)
    check_integer("most", most, at_least=1)
    demands = [demand_on(engine, loop) for engine in dict.fromkeys(engines)]
    longest = max(demands, key=lambda demand: demand.seconds)
    lasting = longest.workload
    assert isinstance(lasting, ClosedLoop)  # as it was given
    warnings = dict.fromkeys(warning for demand in demands for warning in demand.warnings)
    found = MostUsers(dict(limits), 0, 0, 0, longest.seconds, warnings=list(warnings))

    def point(users: int) -> UserPoint:
        if users not in found.points:
            found.points[users] = _point(
                engines, scheduler, lasting.with_users(users), router, limits, seeds, most_seeds
            )
            if report is not None:
                report(found.points[users])
        return found.points[users]

    found.at_least = _last(lambda users: point(users).verdict(limits) is True, 0, most)
    found.users = _last(lambda users: point(users).mean_within(limits), found.at_least, most)
    found.at_most = _last(lambda users: point(users).verdict(limits) is not False, found.users, most)
    if found.at_most == most:
        found.warnings.append(f"the search ended at {most} users, which the fleet still serves")
    return found


def check_limits(limits: Mapping[str, float]) -> None:
    """Refuse limits that are unknown or not above 0.

    Raises:
        ValueError: naming the limit, its value and what is allowed.
    """
    if not limits:
        raise ValueError("limits must not be empty, got none")
    for name, limit in limits.items():
        check_choice("limit", name, LIMITS)
        check_number(name, limit, above=0, unit="s")


def _last(holds: Callable[[int], bool], low: int, most: int) -> int:
    """The largest number up to `most` for which it holds, if it does for `low` and for all below the answer."""
    step = 1
    high = low + 1
    while high <= most and holds(high):
        low, step = high, 2 * step
        high = low + step
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _point(
    engines: Sequence[EngineConfig],
    scheduler: Scheduler,
    loop: ClosedLoop,
    router: Router,
    limits: Mapping[str, float],
    seeds: int,
    most_seeds: int,
) -> UserPoint:
    rows: list[tuple[float, ...]] = []
    while True:
        for _ in range(min(seeds, most_seeds - len(rows))):
            seed = TEST_SEEDS + len(rows)
            result = simulate_network(scheduler, _of_seed(loop, seed), engines, router, seed, record="requests")
            rows.append(tuple(_value(result.requests, name, loop.duration or math.inf) for name in limits))
        point = UserPoint(loop.users, dict(zip(limits, zip(*rows, strict=True), strict=True)))
        if len(rows) >= most_seeds or point.verdict(limits) is not None:
            return point


def _of_seed(loop: ClosedLoop, seed: int) -> ClosedLoop:
    """The loop; requests that are the same for every seed begin at one that the seed draws, so that runs differ."""
    lengths = loop.lengths
    table = lengths if isinstance(lengths, RequestTable) else getattr(getattr(lengths, "source", None), "table", None)
    if table is None:
        return loop
    first = int(np.random.default_rng(seed).integers(len(table)))
    return replace(loop, lengths=table.repeated(2 * len(table)).rows(first, first + len(table)))


def _value(requests: np.recarray, name: str, duration: float) -> float:
    """A statistic of a latency of the requests that arrive after the warm-up; inf without any."""
    statistic, latency = name.rsplit("_", 1)
    rows = requests[requests.arrival >= WARM_UP * duration]
    seconds = dict(zip(LATENCIES, latencies_by_row(rows), strict=True))[latency]
    if latency == "tpot":
        seconds = seconds[rows.output_tokens > 1]
    if not len(seconds):
        return math.inf
    seconds = np.where(np.isnan(seconds), math.inf, seconds)
    percentile = STATISTICS[statistic]
    if percentile is None:
        return float(seconds.mean())
    return float(np.percentile(seconds, percentile, method="higher" if np.isinf(seconds).any() else "linear"))
