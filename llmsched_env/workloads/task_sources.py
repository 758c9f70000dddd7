"""Sources of tasks: a table, a table with drawn arrivals, or the requests of a workload."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.theory.capacity import task_capacity
from llmsched_env.validation import check_integer, check_number
from llmsched_env.workloads.arrivals import Poisson, Renewal
from llmsched_env.workloads.workload import Workload


class TaskSource(ABC):
    """Tasks as a function of a seed, as a `Workload` is for requests; immutable."""

    __slots__ = ()

    name: str
    rate: float  # tasks/s in the long run, nan if unknown in advance
    load: float | None  # of the busiest engine, if set by `at_load`; else None

    @abstractmethod
    def _draw(self, seed: int) -> TaskTable:
        """The tasks of a checked seed."""

    @abstractmethod
    def _at_rate(self, rate: float, load: float | None) -> Self:
        """The same tasks at another rate, which is this load."""

    @abstractmethod
    def representative(self) -> TaskTable:
        """Tasks that represent all, always the same ones."""

    @abstractmethod
    def in_order(self, seed: int, n: int) -> TaskTable:
        """The first n tasks of a seed, all at time 0; more tasks begin with the same ones."""

    def sample(self, seed: int) -> TaskTable:
        """Return the tasks of a seed."""
        return self._draw(check_integer("seed", seed, at_least=0))

    def scaled(self, rate: float) -> Self:
        """Return the same source at another rate, in tasks/s.

        Raises:
            ValueError: the rate is not above zero, or cannot be changed.
        """
        return self._at_rate(check_number("rate", rate, above=0, unit="tasks/s"), None)

    def at_load(self, load: float, engines: EngineConfig | Sequence[EngineConfig]) -> Self:
        """Return the source scaled so that the busiest engine has this load, see `theory.task_capacity`."""
        load = check_number("load", load, above=0)
        rate = load * task_capacity(engines, self.representative())
        return self._at_rate(check_number("rate", rate, above=0, unit="tasks/s"), load)


@dataclass(frozen=True, slots=True, eq=False)
class FixedTasks(TaskSource):
    """The same tasks for every seed."""

    table: TaskTable
    name: str = "tasks"
    load: float | None = None
    rate: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", _mean_rate(self.table.arrival))

    def _draw(self, seed: int) -> TaskTable:
        return self.table

    def _at_rate(self, rate: float, load: float | None) -> Self:
        if not math.isfinite(self.rate):
            raise ValueError("the rate cannot be changed: the arrivals of tasks do not spread over time")
        factor = self.rate / rate
        horizon = self.table.calls.horizon
        return replace(self, table=self.table.at(self.table.arrival * factor, horizon and horizon * factor), load=load)

    def in_order(self, seed: int, n: int) -> TaskTable:
        """The first n tasks, all at time 0; after the last one the first follows again."""
        return self.table.repeated(n)

    def representative(self) -> TaskTable:
        """The table."""
        return self.table


def _mean_rate(arrival: np.ndarray) -> float:
    """Tasks per second between the first and the last arrival; nan or inf if all arrive at once."""
    if len(arrival) < 2:
        return math.nan
    seconds = float(arrival[-1] - arrival[0])
    return (len(arrival) - 1) / seconds if seconds > 0 else math.inf


@dataclass(frozen=True, slots=True, eq=False)
class ReplayedTasks(TaskSource):
    """The tasks of a table in their order, at arrivals drawn for every seed.

    Gaps are rescaled so that the last task arrives at n/rate, as in `TimelessRequests`.

    Attributes:
        table: the tasks.
        rate: tasks/s.
        arrivals: the arrival process.
        name: its name in reports.
        load: load of the busiest engine, if set by `at_load`; else None.
    """

    table: TaskTable
    rate: float
    arrivals: Renewal = field(default_factory=Poisson)
    name: str = "tasks"
    load: float | None = None

    def __post_init__(self) -> None:
        check_number("rate", self.rate, above=0, unit="tasks/s")
        if not len(self.table):
            raise ValueError("table must hold at least one task, got none")

    def _draw(self, seed: int) -> TaskTable:
        times = np.cumsum(self.arrivals.gaps(np.random.default_rng(seed), self.table.num_tasks))
        return self.table.at(times * (len(times) / self.rate / times[-1]))

    def _at_rate(self, rate: float, load: float | None) -> Self:
        return replace(self, rate=rate, load=load)

    def in_order(self, seed: int, n: int) -> TaskTable:
        """The first n tasks, all at time 0; after the last one the first follows again."""
        return self.table.repeated(n)

    def representative(self) -> TaskTable:
        """The table."""
        return self.table


@dataclass(frozen=True, slots=True, eq=False)
class SingleCalls(TaskSource):
    """The requests of a workload, each of which is a task of one call."""

    workload: Workload
    load: float | None = None
    name: str = field(init=False)
    rate: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.workload.name)
        object.__setattr__(self, "rate", self.workload.rate)

    def _draw(self, seed: int) -> TaskTable:
        return TaskTable.from_columns(self.workload.sample(seed))

    def _at_rate(self, rate: float, load: float | None) -> Self:
        return replace(self, workload=self.workload.scaled(rate), load=load)

    def in_order(self, seed: int, n: int) -> TaskTable:
        """The first n requests of a seed, all at time 0."""
        return TaskTable.from_columns(self.workload.source.in_order(check_integer("seed", seed, at_least=0), n))

    def representative(self) -> TaskTable:
        """The requests' lengths, without times."""
        prompt, output = self.workload.length_sample()
        return TaskTable.from_columns(RequestTable.from_columns(np.zeros(len(prompt)), prompt, output))
