"""Tasks as plain columns: graphs of calls, as AI agents make them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from llmsched_env.machine.config import EngineConfig
from llmsched_env.tables.request_table import ColumnError, RequestTable


@dataclass(frozen=True, slots=True, eq=False)
class UserPool:
    """Users in a closed loop: whenever the task of one has ended, the user starts the next task of the table.

    The tasks of the table then have no arrivals of their own. A task ends with its last call, or with the first one
    that is rejected or times out.

    Attributes:
        users: number of users; each begins with one of the first tasks, after its think time.
        think: f8[T] seconds before each task in which its user thinks.
        until: seconds after which no task starts; inf: without end.
        longer: the table with at least so many tasks, of which these are the first; None: these are all.
    """

    users: int
    think: np.ndarray
    until: float = math.inf
    longer: Callable[[int], TaskTable] | None = None

    @property
    def endless(self) -> bool:
        """Whether users go on for ever."""
        return self.longer is not None and self.until == math.inf


@dataclass(frozen=True, slots=True, eq=False)
class TaskTable:
    """Calls grouped by task, tasks in order of arrival; a call becomes ready when all calls before it have finished.

    Attributes:
        calls: one row per call; its `arrival` is that of its task, before which the call is not ready.
        task: i8[n] in 0, 1, ..., T - 1, sorted: the task of each call.
        delay: f8[n] >= 0, seconds from the end of the last call it waits for (or the arrival of its task) until it is
            ready, while a tool or a person works.
        engine: i8[n], the engine that each call is pinned to; -1 if a router chooses.
        edges: i8[m, 2], pairs (before, after) of calls of one task, before < after.
        pool: users in a closed loop who start the tasks in their order; None: tasks arrive by themselves.

    Raises:
        ColumnError: (a ValueError) naming the column, the index, and what is allowed.
    """

    calls: RequestTable
    task: np.ndarray
    delay: np.ndarray
    engine: np.ndarray
    edges: np.ndarray
    pool: UserPool | None = None

    @classmethod
    def from_columns(
        cls,
        calls: RequestTable,
        task: ArrayLike | None = None,
        edges: ArrayLike | None = None,
        delay: ArrayLike | None = None,
        engine: ArrayLike | None = None,
    ) -> Self:
        """Build a table. Without `task` every call is a task of its own; other columns that are absent are neutral."""
        n = len(calls)
        return cls(
            calls,
            np.arange(n) if task is None else np.asarray(task),
            np.zeros(n) if delay is None else np.asarray(delay, dtype=np.float64),
            np.full(n, -1) if engine is None else np.asarray(engine),
            np.zeros((0, 2), np.int64) if edges is None else np.asarray(edges, dtype=np.int64).reshape(-1, 2),
        )

    def __post_init__(self) -> None:
        n = len(self.calls)
        for name in ("task", "delay", "engine"):
            column = getattr(self, name)
            if column.shape != (n,):
                raise ColumnError(name, None, f"must have one value per call, that is {n}, got shape {column.shape}")
        self._refuse("delay", ~((self.delay >= 0) & np.isfinite(self.delay)), "a finite number >= 0 (s)")
        self._refuse("engine", self.engine < -1, "the number of an engine, or -1 (any)")
        expected = np.zeros(n, bool)
        expected[1:] = (np.diff(self.task) < 0) | (np.diff(self.task) > 1)
        expected[:1] = self.task[:1] != 0
        self._refuse("task", expected, "0 for the first call and then the same or one more than before")
        same = np.append(False, np.diff(self.task) == 0)[:n]
        late = same & np.append(False, np.diff(self.calls.arrival) != 0)[:n]
        self._refuse("arrival", late, "the same for all calls of a task", self.calls.arrival)
        before, after = self.edges[:, 0], self.edges[:, 1]
        inside = (before >= 0) & (after < n) & (before < after)
        bad = ~inside
        bad[inside] = self.task[before[inside]] != self.task[after[inside]]
        self._refuse("edges", bad, "pairs of calls of one task, the earlier one first", self.edges)

    def _refuse(self, name: str, bad: np.ndarray, allowed: str, values: np.ndarray | None = None) -> None:
        if bad.any():
            i = int(np.argmax(bad))
            value = (getattr(self, name) if values is None else values)[i]
            raise ColumnError(name, i, f"must be {allowed}, got {value}")

    def __len__(self) -> int:
        """Number of calls."""
        return len(self.calls)

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return int(self.task[-1]) + 1 if len(self.task) else 0

    @property
    def arrival(self) -> np.ndarray:
        """f8[T] seconds: arrivals of the tasks."""
        return self.calls.arrival[np.searchsorted(self.task, np.arange(self.num_tasks))]

    def hops(self) -> np.ndarray:
        """i8[n]: number of calls before each one on the longest path to it."""
        return self._longest(np.ones(len(self)), forward=True).astype(np.int64) - 1

    def path_left(self, work: np.ndarray) -> np.ndarray:
        """f8[n]: sum of `work` (f8[n]) on the heaviest path from each call, inclusive, to the end of its task."""
        return self._longest(work, forward=False)

    def critical_path(self, seconds: np.ndarray) -> np.ndarray:
        """f8[T] seconds: the longest path of each task, delays included, if calls take `seconds` (f8[n])."""
        total = self._longest(seconds + self.delay, forward=True)
        return np.maximum.reduceat(total, np.searchsorted(self.task, np.arange(self.num_tasks))) if len(self) else total

    def at(self, arrival: np.ndarray, horizon: float | None = None) -> TaskTable:
        """The same tasks at other times, f8[T] seconds, sorted."""
        calls = replace(self.calls, arrival=np.asarray(arrival, float)[self.task], horizon=horizon)
        return replace(self, calls=calls, pool=None)

    def first(self, n: int) -> TaskTable:
        """The first n tasks."""
        calls = int(np.searchsorted(self.task, n))
        columns = {name: getattr(self, name)[:calls] for name in ("task", "delay", "engine")}
        horizon = self.calls.horizon
        own = replace(self.calls.rows(0, calls), horizon=horizon)
        return replace(self, calls=own, edges=self.edges[self.edges[:, 1] < calls], pool=None, **columns)

    def repeated(self, n: int) -> TaskTable:
        """The first n tasks, over and over, all at time 0."""
        if not len(self):
            raise ValueError("tasks in a closed loop must be at least one, got none")
        rounds = -(-n // self.num_tasks)
        again, place = np.divmod(np.arange(rounds * len(self)), len(self))
        edges = (self.edges[None] + len(self) * np.arange(rounds)[:, None, None]).reshape(-1, 2)
        table = TaskTable(
            self.calls.repeated(rounds * len(self)),
            self.task[place] + again * self.num_tasks,
            self.delay[place],
            self.engine[place],
            edges,
        )
        return table.first(n)

    def _longest(self, work: np.ndarray, forward: bool) -> np.ndarray:
        own = np.asarray(work, dtype=np.float64).tolist()
        total = own.copy()
        sources, targets = self.edges.T if forward else self.edges.T[::-1]
        order = np.argsort(targets, kind="stable")
        order = order if forward else order[::-1]
        # In order of targets, so that the sums of their sources are final. Lists, because indexing an array is slow.
        for source, target in zip(sources[order].tolist(), targets[order].tolist(), strict=True):
            through = own[target] + total[source]
            if through > total[target]:
                total[target] = through
        return np.array(total)


class TaskSampler(Protocol):
    """What `simulate_network` needs of a workload: its tasks as a function of a seed."""

    @property
    def name(self) -> str:
        """Its name in reports."""

    def sample(self, seed: int) -> TaskTable | RequestTable:
        """The tasks of a seed, or requests, each of which is a task of one call."""


@runtime_checkable
class EngineTasks(Protocol):
    """What `simulate` needs of tasks on one engine, such as those of users in a closed loop."""

    @property
    def name(self) -> str:
        """Its name in reports."""

    @property
    def rate(self) -> float:
        """Tasks per second, nan if unknown."""

    def sample(self, seed: int) -> TaskTable:
        """The tasks of a seed."""

    def reference_capacity(self, engine: EngineConfig) -> float:
        """Calls/s that the engine sustains on this mix of lengths."""


def requests_of(table: RequestTable | TaskTable) -> RequestTable:
    """The requests of a table, or all calls of its tasks."""
    return table.calls if isinstance(table, TaskTable) else table
