"""What schedulers are run on: disjoint ranges of seeds, loads, and fixed cases with the same requests for everyone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np

from llmsched_env.interrupts import workers
from llmsched_env.machine.config import EngineConfig
from llmsched_env.results.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import replay
from llmsched_env.validation import check_integer
from llmsched_env.workloads import ClosedLoop, RequestTable, TaskTable, Workload

T = TypeVar("T")
S = TypeVar("S")

TRAINING_SEEDS = 10_000
TUNING_SEEDS = 20_000
TEST_SEEDS = 30_000
_SEEDS_PER_RANGE = 10_000
SEED_BLOCK = 9_000
"""Random seeds of training and tuning are drawn from the first of this number in their range."""

Load = float | Literal["recorded"]
"""A fraction of the reference capacity, or the recorded rate of a trace."""


def seed_range(first: int, count: int) -> range:
    """The `count` seeds from `first`, one of TRAINING_SEEDS, TUNING_SEEDS and TEST_SEEDS.

    The ranges are disjoint, so nothing is tested on requests that it was trained or tuned on.

    Raises:
        ValueError: if `count` is below 1 or reaches into the next range.
    """
    return range(first, first + check_integer("number of seeds", count, at_least=1, at_most=_SEEDS_PER_RANGE))


def load_text(load: Load) -> str:
    """A load as it is printed."""
    return load if isinstance(load, str) else f"{load:g}"


@dataclass(frozen=True, slots=True)
class Cases:
    """Every workload with every seed, on one engine.

    Attributes:
        workloads: one for each load.
        seeds: of each workload.
        engine: the machine.
        horizon: clock in s at which runs stop; None: every run drains, so all latencies are known.
        record: what a run records, see `simulate`.
    """

    workloads: tuple[Workload | ClosedLoop, ...]
    seeds: tuple[int, ...]
    engine: EngineConfig
    horizon: float | None = None
    record: str = "batches"

    def first(self, count: int) -> Cases:
        """The same cases with the first `count` seeds only."""
        return replace(self, seeds=self.seeds[:count])

    def map(self, schedulers: Sequence[Scheduler], measure: Callable[[Result], T]) -> list[list[T]]:
        """`measure` of every run of every scheduler, on all cores.

        Returns:
            [schedulers][workloads x seeds]
        """
        runs = [(workload, self.engine, seed) for workload in self.workloads for seed in self.seeds]
        return map_runs(schedulers, runs, measure, self.horizon, self.record)

    def means(self, schedulers: Sequence[Scheduler], metric: str) -> np.ndarray:
        """Mean over all runs of a number of `Result.summary`, f8[schedulers]."""
        values = self.map(schedulers, lambda result: result.summary()[metric])
        return np.asarray(np.mean(values, axis=1))


def map_runs(
    schedulers: Sequence[Scheduler],
    runs: Sequence[tuple[Workload | ClosedLoop, EngineConfig, int]],
    measure: Callable[[Result], T],
    horizon: float | None = None,
    record: str = "batches",
) -> list[list[T]]:
    """`measure` of every run under every scheduler, on all cores.

    The requests of a run are drawn once for all schedulers. `Result.capacity` and `Result.load` are nan.

    Args:
        schedulers: what to run.
        runs: (workload, engine, seed) of each run.
        measure: from a run to what is kept of it.
        horizon: clock in s at which runs stop; None: they drain.
        record: what a run records, see `simulate`.

    Returns:
        [schedulers][runs]
    """

    def run(scheduler: Scheduler, table: RequestTable | TaskTable, name: str, engine: EngineConfig, seed: int) -> T:
        return measure(replay(scheduler, table, name, engine, seed, horizon, record))

    drawn = ((workload.sample(seed), workload.name, engine, seed) for workload, engine, seed in runs)
    return map_cases(run, schedulers, drawn)


def map_cases(run: Callable[..., T], schedulers: Sequence[S], cases: Iterable[tuple[Any, ...]]) -> list[list[T]]:
    """`run(scheduler, *case)` of every scheduler and case, on all cores.

    Returns:
        [schedulers][cases]
    """
    with workers() as pool:  # threads: compiled code releases the interpreter lock
        futures = [[pool.submit(run, scheduler, *case) for scheduler in schedulers] for case in cases]
        by_case = [[future.result() for future in row] for row in futures]
    return [[values[k] for values in by_case] for k in range(len(schedulers))]
