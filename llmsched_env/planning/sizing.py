"""The fewest replicas of an engine that serve a workload within its targets, found by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from llmsched_env.evaluation.cases import TEST_SEEDS
from llmsched_env.intervals import mean_interval
from llmsched_env.machine.config import EngineConfig
from llmsched_env.planning.demand import FleetDemand, demand_on
from llmsched_env.planning.flags import Flag, flags_of
from llmsched_env.results.metrics import within_limits
from llmsched_env.results.records import NetworkResult
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.validation import check_integer, check_number
from llmsched_env.workloads import ClosedLoop, Workload

SECONDS_PER_HOUR = 3600.0
_LOAD_NOISE = 0.01  # a reference capacity is not exact


@dataclass(frozen=True, slots=True)
class Option:
    """A machine that can be rented.

    Attributes:
        name: what tables call it.
        engine: one replica.
        price: of a replica, per hour, in any currency.
    """

    name: str
    engine: EngineConfig
    price: float

    def __post_init__(self) -> None:
        check_number("price", self.price, above=0, unit="per hour")


@dataclass(frozen=True, slots=True)
class FleetPoint:
    """Simulations of one number of replicas; one value a seed.

    Attributes:
        replicas: number of replicas.
        attainment: share of requests that met their targets.
        goodput: requests that met their targets, per second of arrivals.
        tokens: prompt and output tokens of finished requests, per second of arrivals; where these are more than the
            fleet can serve, per second of the whole run.
        utilisation: share of the time of arrivals in which an engine ran a batch, mean over engines.
    """

    replicas: int
    attainment: tuple[float, ...]
    goodput: tuple[float, ...]
    tokens: tuple[float, ...]
    utilisation: tuple[float, ...]

    def interval(self, name: str) -> tuple[float, float]:
        """Mean of a column and half width of its 95 % t-interval (nan for one seed)."""
        return mean_interval(getattr(self, name))

    def verdict(self, target: float) -> bool | None:
        """Whether the attainment reaches `target`; None if `target` is within its 95 % interval."""
        mean, half = self.interval("attainment")
        if math.isnan(half) or half == 0.0:
            return mean >= target
        if mean - half >= target:
            return True
        return False if mean + half < target else None


@dataclass(slots=True)
class Sizing:
    """The number of replicas of one machine under one scheduler.

    Attributes:
        option: the machine.
        scheduler: the scheduler.
        target: share of requests that must meet their targets.
        first_guess: offered rate over the reference capacity of a replica, rounded up.
        points: the simulations, by number of replicas.
        replicas: the fewest that meet the target at 95 % confidence; None if the most allowed do not.
        at_least: the fewest that may meet it; below `replicas` if more seeds are needed to decide.
        demand: what the workload asks of the machine.
        flags: the scheduler's limits as options of `vllm serve`, and what half and double of them would change.
        warnings: why the answer is to be doubted.
    """

    option: Option
    scheduler: Scheduler
    target: float
    first_guess: int
    demand: FleetDemand
    points: dict[int, FleetPoint] = field(default_factory=dict)
    replicas: int | None = None
    at_least: int | None = None
    flags: tuple[Flag, ...] = ()
    warnings: list[str] = field(default_factory=list)

    def cost_per_million_tokens(self, replicas: int) -> float:
        """Price of a million prompt and output tokens with this number of replicas."""
        tokens = float(np.mean(self.points[replicas].tokens))
        return math.inf if tokens == 0 else self.option.price * replicas / SECONDS_PER_HOUR / tokens * 1e6

    def marginal_goodput(self, replicas: int) -> float:
        """Goodput that one more replica adds, in requests/s; nan if it was not simulated."""
        if replicas + 1 not in self.points:
            return math.nan
        more, now = (np.array(self.points[n].goodput) for n in (replicas + 1, replicas))
        n = min(len(more), len(now))
        return float(np.mean(more[:n] - now[:n]))


def size(
    option: Option,
    scheduler: Scheduler,
    workload: Workload | ClosedLoop,
    router: Router,
    target: float = 0.99,
    seeds: int = 5,
    most_seeds: int = 20,
    most_replicas: int = 256,
    beyond: int = 2,
    report: Callable[[FleetPoint], None] | None = None,
) -> Sizing:
    """Find the fewest replicas with which at least `target` of all requests meet their targets.

    The first guess is the rate over the reference capacity. From there the number is doubled until it is enough, then
    found by bisection. A number is enough if the 95 % interval of the attainment over seeds is above the target. While
    the interval includes the target, seeds are added, up to `most_seeds`.

    Arrivals that are too short for queues to show are made longer, see `demand_on`. No number is
    enough, and none is simulated, if too many requests do not fit on a replica.

    Args:
        option: the machine.
        scheduler: of every replica; a learned one decides for each replica by its own queue.
        workload: with its targets; fixed requests have one seed. Or users in a closed loop, with a duration.
        router: binds requests to replicas.
        target: share of requests that must meet their targets.
        seeds: initial number of seeds.
        most_seeds: largest number of seeds.
        most_replicas: largest number of replicas.
        beyond: numbers of replicas to simulate above the answer, for the gain of one more replica.
        report: called with each simulated point.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    check_number("target", target, above=0, at_most=1)
    check_integer("seeds", seeds, at_least=1)
    check_integer("most_seeds", most_seeds, at_least=seeds)
    check_integer("most_replicas", most_replicas, at_least=1)
    demand = demand_on(option.engine, workload)
    guess = 1 if math.isnan(demand.load) else max(1, math.ceil(demand.load - 1e-9))
    sizing = Sizing(option, scheduler, target, guess, demand, warnings=list(demand.warnings))
    if demand.unfit + demand.late > (1 - target) * demand.requests + 1e-9:
        return sizing

    def enough(replicas: int) -> bool | None:
        if replicas not in sizing.points:
            sizing.points[replicas] = _point(sizing, scheduler, router, replicas, seeds, most_seeds)
            if report is not None:
                report(sizing.points[replicas])
        return sizing.points[replicas].verdict(target)

    low, high = 0, min(guess, most_replicas)  # low is not enough
    while enough(high) is not True:
        if high == most_replicas:
            return sizing
        low, high = high, min(2 * high, most_replicas)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) is True else (middle, high)
    sizing.replicas = sizing.at_least = high
    while sizing.at_least > 1 and enough(sizing.at_least - 1) is None:
        sizing.at_least -= 1
    for replicas in range(max(1, high - 1), min(high + beyond, most_replicas) + 1):
        enough(replicas)
    own = sizing.points[high].attainment

    def with_another(scheduler: Scheduler) -> tuple[float, ...]:
        return _point(sizing, scheduler, router, high, len(own), len(own)).attainment

    sizing.flags = flags_of(scheduler, option.engine, own, with_another)
    if demand.load > high * (1 + _LOAD_NOISE):
        sizing.warnings.append(
            f"load {demand.load / high:.2f} with {high}: more arrives than they can serve for ever, so the answer "
            f"holds for {demand.seconds:.3g} s of arrivals only"
        )
    return sizing


def _measured(result: NetworkResult, begin: float, seconds: float, overloaded: bool) -> tuple[float, ...]:
    """Attainment, goodput, tokens and utilisation of a run, with arrivals from `begin` for so many seconds."""
    rows, batches, engines = result.requests, result.batches, len(result.engines)
    good = within_limits(rows)
    assert batches is not None  # as recorded
    met = math.nan if good is None else float(good.sum())
    finished = rows[rows.status == "finished"]
    tokens = float((finished.prompt_tokens + finished.output_tokens).sum())
    end = np.clip(batches.start + batches.duration, begin, begin + seconds)
    busy = float((end - np.clip(batches.start, begin, begin + seconds)).sum())
    whole = max(seconds, result.end - begin) if overloaded else seconds
    return met / max(1, len(rows)), met / seconds, tokens / whole, busy / seconds / engines


def _point(
    sizing: Sizing, scheduler: Scheduler, router: Router, replicas: int, seeds: int, most_seeds: int
) -> FleetPoint:
    demand = sizing.demand
    fixed, engines = demand.fixed, (sizing.option.engine,) * replicas
    rows: list[tuple[float, ...]] = []
    point = FleetPoint(replicas, (), (), (), ())
    while len(rows) < (1 if fixed else most_seeds):
        for seed in range(len(rows), 1 if fixed else min(most_seeds, len(rows) + seeds)):
            result = simulate_network(scheduler, demand.workload, engines, router, TEST_SEEDS + seed)
            begin = float(result.requests.arrival.min(initial=math.inf)) if fixed else 0.0
            overloaded = not demand.load <= replicas  # also users in a closed loop, who have no load
            rows.append(_measured(result, begin, demand.seconds, overloaded))
        point = FleetPoint(replicas, *zip(*rows, strict=True))
        if point.verdict(sizing.target) is not None:
            break
    return point
