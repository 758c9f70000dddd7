"""Tasks of a table at times drawn afresh, and requests as tasks of one call."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from llmsched_env.simulator.request_table import RequestTable
from llmsched_env.simulator.task_table import TaskTable
from llmsched_env.validation import check_number
from llmsched_env.workloads.arrivals import Poisson, Renewal
from llmsched_env.workloads.tasks import TaskSource
from llmsched_env.workloads.workload import Workload


@dataclass(frozen=True, slots=True, eq=False)
class ReplayedTasks(TaskSource):
    """The tasks of a table in their order, at arrivals drawn for every seed.

    Gaps are rescaled so that the last task arrives at n/rate, as those of requests from files without times.

    Attributes:
        table: the tasks.
        rate: tasks/s.
        arrivals: the arrival process.
        name: what reports call it.
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

    def _at_rate(self, rate: float) -> ReplayedTasks:
        return replace(self, rate=rate)

    def representative(self) -> TaskTable:
        """The table."""
        return self.table


@dataclass(frozen=True, slots=True, eq=False)
class SingleCalls(TaskSource):
    """The requests of a workload, each a task of one call."""

    workload: Workload
    load: float | None = None

    @property
    def name(self) -> str:
        """Name of the workload."""
        return self.workload.name

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.workload.rate

    def _draw(self, seed: int) -> TaskTable:
        return TaskTable.from_columns(self.workload.sample(seed))

    def _at_rate(self, rate: float) -> SingleCalls:
        return replace(self, workload=self.workload.scaled(rate))

    def representative(self) -> TaskTable:
        """The requests' lengths, without times."""
        prompt, output = self.workload.length_sample()
        return TaskTable.from_columns(RequestTable.from_columns(np.zeros(len(prompt)), prompt, output))
