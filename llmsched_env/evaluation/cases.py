"""Fixed runs on which schedulers are tuned, validated and chosen: the same requests for every scheduler."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import replay
from llmsched_env.workloads import RequestTable, Workload

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cases:
    """Workloads by seeds on one engine.

    Attributes:
        workloads: one for each load.
        seeds: seeds of each.
        engine: the machine.
        horizon: clock in s at which runs stop; None: every run drains, so that all latencies are known.
        record: how much of a run is kept for its measure, see `simulate`.
    """

    workloads: tuple[Workload, ...]
    seeds: tuple[int, ...]
    engine: EngineConfig
    horizon: float | None = None
    record: str = "batches"

    def first(self, count: int) -> "Cases":
        """The same with the first `count` seeds only."""
        return replace(self, seeds=self.seeds[:count])

    def map(self, schedulers: Sequence[Scheduler], measure: Callable[[Result], T]) -> list[list[T]]:
        """`measure` of every run of every scheduler, on all cores; [schedulers][workloads x seeds]."""
        runs = [(workload, self.engine, seed) for workload in self.workloads for seed in self.seeds]
        return map_runs(schedulers, runs, measure, self.horizon, self.record)

    def means(self, schedulers: Sequence[Scheduler], metric: str) -> np.ndarray:
        """f8[schedulers]: mean over all runs of a number of `Result.summary`."""
        values = self.map(schedulers, lambda result: result.summary()[metric])
        return np.array(values).mean(axis=1)


def map_runs(
    schedulers: Sequence[Scheduler],
    runs: Sequence[tuple[Workload, EngineConfig, int]],
    measure: Callable[[Result], T],
    horizon: float | None = None,
    record: str = "batches",
) -> list[list[T]]:
    """`measure` of every run (workload, engine, seed) under every scheduler, on all cores; [schedulers][runs].

    The requests of a run are drawn once for all schedulers. `Result.capacity` and `Result.load` are nan.
    """

    def run(scheduler: Scheduler, table: RequestTable, name: str, engine: EngineConfig, seed: int) -> T:
        return measure(replay(scheduler, table, name, engine, seed, horizon, record))

    drawn = ((workload.sample(seed), workload.name, engine, seed) for workload, engine, seed in runs)
    return map_cases(run, schedulers, drawn)


def map_cases(run: Callable[..., T], schedulers: Sequence[Scheduler], cases: Iterable[tuple]) -> list[list[T]]:
    """`run(scheduler, *case)` of every scheduler and case, on all cores; [schedulers][cases]."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads: compiled code releases the interpreter lock
        try:
            futures = [[pool.submit(run, scheduler, *case) for scheduler in schedulers] for case in cases]
            by_case = [[future.result() for future in row] for row in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [[values[k] for values in by_case] for k in range(len(schedulers))]
