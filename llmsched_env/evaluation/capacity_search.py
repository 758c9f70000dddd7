"""The largest stable rate of a scheduler on a workload, found by simulation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from llmsched_env.intervals import mean_interval
from llmsched_env.machine.config import EngineConfig
from llmsched_env.results.records import Result
from llmsched_env.results.stability import service_slope
from llmsched_env.simulator.scheduler import LIMIT_PARAMS, Scheduler
from llmsched_env.simulator.simulate import simulate_many
from llmsched_env.tables.request_table import COLUMNS, RequestTable
from llmsched_env.theory import capacity, kv_token_steps, mean_work
from llmsched_env.theory.work import token_seconds
from llmsched_env.validation import check_integer, check_number
from llmsched_env.workloads.sources import FixedRequests
from llmsched_env.workloads.workload import Workload

_WAITING = 0.2  # requests waiting at the start, relative to those that arrive during the run
_LEAST_WAITING = 400  # enough that the queue does not empty by chance
_DRAINED = 0.25  # share of the initial backlog; below it the run no longer counts as backlogged
_POINTS = 400  # times at which the backlog is measured
_LIFETIMES = 20  # shortest run, in lifetimes of a request in full batches
_MARGIN = 0.8  # of the tolerance: distance of the tried rates from the estimated capacity
_RESOLUTION = 0.05  # of the tolerance: smaller slopes are noise, because batches are discrete
_STEEPEST = 32  # largest factor between consecutive rates
_NOTHING = 1e-3  # of the reference capacity: a smaller capacity counts as 0
_FROZEN = 0.999  # slope of a scheduler that does almost nothing


class Evaluation(NamedTuple):
    """The verdict on one rate, and its basis.

    Attributes:
        rate: requests/s.
        verdict: whether the backlog shrinks ("stable") or grows ("unstable").
        slope: growth of the backlog, as a fraction of the offered tokens per second.
        half_width: of the 95 % t-interval of `slope`.
        horizon: simulated seconds per seed.
    """

    rate: float
    verdict: Literal["stable", "unstable", "undecided"]
    slope: float
    half_width: float
    horizon: float


class CapacityEstimate(NamedTuple):
    """A bracket of the largest stable rate.

    Attributes:
        rate: requests/s, the middle of the bracket.
        low: largest rate with the verdict "stable"; 0 if there is none.
        high: smallest rate with the verdict "unstable"; inf if there is none.
        decided: whether the bracket is within the tolerance; if not, `rate` is a guess.
        evaluations: all evaluations, in order.
    """

    rate: float
    low: float
    high: float
    decided: bool
    evaluations: tuple[Evaluation, ...]


def empirical_capacity(
    scheduler: Scheduler,
    workload: Workload,
    engine: EngineConfig,
    *,
    seeds: Iterable[int] = range(8),
    horizon: float | None = None,
    tolerance: float = 0.01,
    growth: int = 16,
    max_evaluations: int = 24,
    progress: bool = False,
) -> CapacityEstimate:
    """The largest rate at which `scheduler` is stable on `workload`: a bracket with a verdict on each side.

    Each rate is simulated from a loaded start: more requests than any batch can hold wait at time 0. Below capacity
    this backlog shrinks linearly and above capacity it grows, so the sign of its slope decides: stability means that
    the fluid model drains (Dai 1995). Runs from an empty system agree in the long run, but close to capacity their
    backlog fluctuates for a time that grows as the inverse square of the distance. (If a scheduler serves less once it
    is behind, the result is the rate at which it recovers.) While there is a backlog, what the scheduler serves hardly
    depends on the arrivals, so the slope is measured as the offered tokens/s minus the served ones, without the noise
    of arrivals.

    The first 40 to 60 % of each run are discarded. The 95 % t-interval of the slope over the seeds decides: "stable"
    below 0, "unstable" above; otherwise the horizon doubles, up to `growth` times the first one. The service rates
    measured so far give the next rate, until a stable and an unstable one are within the tolerance.

    The requests of a trace are repeated without end, from a random start for each seed.

    Args:
        scheduler: the scheduler to test.
        workload: gives arrival process and lengths; its rate does not matter.
        engine: the machine.
        seeds: seeds of the replications, at least two.
        horizon: seconds of the first runs; None: 20 lifetimes of a request, and at least what 5 times the initial
            backlog takes.
        tolerance: half the relative width of the final bracket.
        growth: largest factor between the longest and the first runs.
        max_evaluations: most rates to try.
        progress: show a progress bar for each rate.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    seeds = [check_integer("seeds", seed, at_least=0) for seed in seeds]
    if len(set(seeds)) < 2:
        raise ValueError(f"seeds must hold at least two different ones, got {seeds}")
    if horizon is not None:
        check_number("horizon", horizon, above=0, unit="s")
    check_number("tolerance", tolerance, above=0, at_most=0.5)
    check_integer("growth", growth, at_least=1)
    check_integer("max_evaluations", max_evaluations, at_least=1)
    trial = _Trial(scheduler, workload, engine, seeds, horizon, tolerance * _RESOLUTION, growth, progress)
    return _search(trial, capacity(engine, workload), tolerance, max_evaluations)


def _search(trial: _Trial, reference: float, tolerance: float, max_evaluations: int) -> CapacityEstimate:
    tried: list[Evaluation] = []
    low, high, rate = 0.0, math.inf, (1 + 5 * tolerance) * reference
    while len(tried) < max_evaluations and low < high:  # otherwise the verdicts contradict each other
        tried.append(trial.evaluate(rate))
        verdicts = [evaluation.verdict for evaluation in tried]
        if verdicts.count("undecided") > 1:
            break
        if verdicts[-1] == "stable":
            low = max(low, rate)
        if verdicts[-1] == "unstable":
            high = min(high, rate)
        if high <= _NOTHING * reference:
            return CapacityEstimate(0.0, 0.0, high, True, tuple(tried))
        if high < math.inf and 0 <= high - low <= tolerance * (high + low):
            return CapacityEstimate((low + high) / 2, low, high, True, tuple(tried))
        if tried[-1].slope > _FROZEN and rate > _NOTHING * reference:
            rate = _NOTHING * reference
            continue
        halve = len(tried) % 4 == 0 and low > 0 and high < math.inf
        rate = math.sqrt(low * high) if halve else _next_rate(tried, low, high, _MARGIN * tolerance)
    return CapacityEstimate(_balance(tried), low, high, False, tuple(tried))


def _next_rate(tried: list[Evaluation], low: float, high: float, margin: float) -> float:
    """A rate slightly above the estimated capacity, or slightly below it if that is known to be unstable."""
    nearest = min(tried, key=lambda evaluation: abs(evaluation.slope)).rate
    estimate = min(max(_balance(tried), nearest / _STEEPEST, low), nearest * _STEEPEST, high)
    above = estimate * (1 + margin)
    return above if above < high * (1 - _RESOLUTION * margin) else estimate * (1 - margin)


def _balance(tried: list[Evaluation]) -> float:
    """Rate that equals the service rate, by linear interpolation between the two rates closest to balance."""
    first, *others = sorted(tried, key=lambda evaluation: abs(evaluation.slope))
    served = first.rate * (1 - first.slope)
    if not others or others[0].rate == first.rate:
        return served
    gain = (others[0].rate * (1 - others[0].slope) - served) / (others[0].rate - first.rate)
    return (served - gain * first.rate) / (1 - gain) if gain < 1 else served


@dataclass(frozen=True, slots=True)
class _Trial:
    """The experiment that is run at every rate."""

    scheduler: Scheduler
    workload: Workload
    engine: EngineConfig
    seeds: list[int]
    horizon: float | None
    resolution: float
    growth: int
    progress: bool

    def evaluate(self, rate: float) -> Evaluation:
        """The verdict on a rate; runs are extended until it is clear."""
        slots, lifetime = self._scale()
        first = self.horizon
        if first is None:
            first = max(_LIFETIMES * lifetime, max(1.25 * slots, _LEAST_WAITING) / (_WAITING * rate))
        factor = 1
        while True:
            evaluation = self._verdict(rate, first * factor)
            factor *= 2
            if evaluation.verdict != "undecided" or factor > self.growth:
                return evaluation

    def _verdict(self, rate: float, horizon: float) -> Evaluation:
        slots, _ = self._scale()
        waiting = math.ceil(max(_WAITING * rate * horizon, 1.25 * slots, _LEAST_WAITING))
        loaded = LoadedStart(self.workload, rate, waiting, horizon)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* stalled at ", RuntimeWarning)
            results = simulate_many(self.scheduler, loaded, self.engine, self.seeds, horizon, progress=self.progress)
        offered = rate * mean_work(self.workload, self.engine).tokens
        slope, half_width = mean_interval([_slope(result, offered, horizon) for result in results])
        if abs(slope) <= max(half_width, self.resolution):
            return Evaluation(rate, "undecided", slope, half_width, horizon)
        return Evaluation(rate, "unstable" if slope > 0 else "stable", slope, half_width, horizon)

    def _scale(self) -> tuple[float, float]:
        """Largest number of requests in a batch, and seconds that a request spends in full batches."""
        engine, limits = self.engine, dict(zip(self.scheduler.params, self.scheduler.param_values(), strict=True))
        budget, *seats = (limits.get(name, math.inf) for name in LIMIT_PARAMS)
        budget = min(engine.token_budget, budget)
        slots = min(budget, engine.max_num_seqs or math.inf, *seats)
        work = mean_work(self.workload, engine)
        if engine.kv_blocks is not None:
            held = float(np.mean(kv_token_steps(*self.workload.length_sample(), engine)))
            slots = min(slots, engine.kv_blocks * engine.block_size * (work.decodes + 1) / held)
        return slots, (work.decodes + 1) * float(token_seconds(engine, np.float64(budget)))


def _slope(result: Result, offered: float, horizon: float) -> float:
    """Offered minus served tokens/s while there was a backlog, relative to the offered ones.

    If the queue empties by chance, as in a lull of bursty arrivals, only the time until then counts.
    """
    times = np.linspace(0.0, horizon, _POINTS)
    left = np.asarray(result.backlog(times))
    drained = np.flatnonzero(left < _DRAINED * left[0])
    if drained.size:
        return 1 - service_slope(result, 0.0, float(times[drained[0]])) / offered
    # Windows differ by seed, so that they do not all cut a periodic schedule at the same points.
    start, stop = np.random.default_rng(result.seed).uniform([0.4, 0.9], [0.6, 1.0]) * horizon
    return 1 - service_slope(result, start, stop) / offered


@dataclass(frozen=True, slots=True)
class LoadedStart:
    """Requests of a workload, of which `waiting` arrive at time 0 and the others until `horizon`.

    A seed draws the same requests at every rate, if the workload does.
    """

    workload: Workload
    rate: float
    waiting: int
    horizon: float

    def sample(self, seed: int) -> RequestTable:
        """The requests of a seed."""
        scaled = self.workload.scaled(self.rate)
        seconds = self.horizon + self.waiting / self.rate
        while True:
            table = _requests(scaled, seconds, np.random.default_rng(seed))
            if len(table) > self.waiting and table.arrival[self.waiting - 1] + self.horizon <= seconds:
                break
            seconds *= 1.1
        arrival = np.maximum(table.arrival - table.arrival[self.waiting - 1], 0.0)
        return _rows(table, arrival, np.arange(np.searchsorted(arrival, self.horizon, "right")), self.horizon)

    @property
    def name(self) -> str:
        """Name of the workload."""
        return self.workload.name

    def reference_capacity(self, engine: EngineConfig) -> float:
        """Reference capacity of the workload, requests/s."""
        return self.workload.reference_capacity(engine)


def _requests(workload: Workload, seconds: float, rng: np.random.Generator) -> RequestTable:
    """Requests of the workload on [0, seconds); those of a trace are repeated from a random start."""
    if not isinstance(workload.source, FixedRequests):
        return workload.episode(rng, seconds)
    table = workload.source.table
    period = len(table) / workload.rate
    copies = math.ceil(seconds / period) + 2
    arrival = np.tile(table.arrival, copies) + period * np.repeat(np.arange(copies), len(table))
    first = int(rng.integers(len(table)))
    arrival = arrival[first:] - arrival[first]
    arrival = arrival[arrival < seconds]
    repeated = table.repeated(copies * len(table)).rows(first, first + len(arrival))  # parents before it are cut off
    return replace(repeated, arrival=arrival, horizon=seconds)


def _rows(table: RequestTable, arrival: np.ndarray, rows: np.ndarray, horizon: float) -> RequestTable:
    """Rows of the table at new times, as many as there are of both."""
    n = min(len(arrival), len(rows))
    columns = {name: getattr(table, name)[rows[:n]] for name in COLUMNS}
    return RequestTable(**{**columns, "arrival": arrival[:n]}, horizon=horizon)
