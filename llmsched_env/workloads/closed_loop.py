"""Users in a closed loop: each waits for the end of a task, thinks, and starts the next one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.slo import SLO
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.tables.task_table import TaskTable, UserPool
from llmsched_env.theory.capacity import capacity
from llmsched_env.validation import check_integer, check_number
from llmsched_env.workloads.agent_tasks import AgentTasks, table_of_tasks
from llmsched_env.workloads.delays import Delay, as_delay
from llmsched_env.workloads.task_graphs import TaskLaw
from llmsched_env.workloads.task_sources import SingleCalls, TaskSource
from llmsched_env.workloads.workload import Workload

_MOST_ROUNDS = 10**6  # most tasks of a user that are drawn beforehand
_FIRST_TASKS = 256  # tasks drawn at first, and so many more for each user:
STARTS_AHEAD = 8
_THINK = 0x7468696E6B  # separates the think times of a seed from everything else drawn from it


@dataclass(frozen=True, slots=True, eq=False)
class ClosedLoop(TaskSource):
    """Users who start a task, wait for its end, think, and start the next one.

    Tasks are drawn as they are needed, in one order for any number of users; whoever is free starts the next one. The
    client of a call is the index of its user. A user's first task also begins after a think time. A task also ends with
    a call that is rejected or times out. Runs end with `simulate(..., horizon=...)`, or by themselves with `duration`
    or `tasks`.

    With `horizon`, all tasks are drawn beforehand instead: each user is one task of the table, with so many calls that
    its think times alone fill the horizon.

    Attributes:
        law: law of the users' tasks, or a source of tasks such as `task_preset("coding-agent")`, whose arrivals do not
            count.
        users: number of users.
        think: seconds between the end of a task and the user's next one, or their law; above 0 with `horizon`.
        horizon: seconds for which tasks are drawn beforehand; None: they are drawn as they are needed.
        name: its name in reports.
        slo: targets of every call; None: those that its tasks have.
        lengths: in place of `law`, a workload or a table of requests, each of which is a task of one call. Those of a
            table or a trace come in its order, over and over.
        duration: seconds after which no task starts; None: without end.
        tasks: how many tasks are started in all; None: without end.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    law: TaskLaw | TaskSource | None = None
    users: int = 0
    think: Delay | float = 0.0
    horizon: float | None = None
    name: str = ""
    slo: SLO | None = None
    lengths: Workload | RequestTable | None = None
    duration: float | None = None
    tasks: int | None = None
    load: float | None = field(default=None, init=False)
    rate: float = field(default=math.nan, init=False)  # unknown in advance

    def __post_init__(self) -> None:
        check_integer("users", self.users, at_least=1)
        object.__setattr__(self, "think", as_delay("think", self.think))
        if (self.law is None) == (self.lengths is None):
            raise ValueError(f"one of law and lengths must be given, got law={self.law!r}, lengths={self.lengths!r}")
        if self.law is not None and not isinstance(self.law, TaskLaw | TaskSource):
            raise ValueError(f"law must be a law or a source of tasks, got {self.law!r}")
        if self.lengths is not None and not isinstance(self.lengths, Workload | RequestTable):
            raise ValueError(f"lengths must be a Workload or a RequestTable, got {self.lengths!r}")
        object.__setattr__(self, "name", self.name or self._usual_name())
        for name, value, unit in (("duration", self.duration, "s"), ("horizon", self.horizon, "s")):
            if value is not None:
                check_number(name, value, above=0, unit=unit)
        if self.tasks is not None:
            check_integer("tasks", self.tasks, at_least=1)
        if self.horizon is None:
            return
        for name in ("lengths", "duration", "tasks"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} must be None with horizon={self.horizon:g}, got {getattr(self, name)!r}")
        if not isinstance(self.law, TaskLaw):
            raise ValueError(f"law must be a law of tasks with horizon={self.horizon:g}, got {self.law!r}")
        if self._mean_think() <= self.horizon / _MOST_ROUNDS:
            raise ValueError(
                f"think must be so long that {_MOST_ROUNDS} tasks fill the horizon, got {self.think!r}; without a "
                "horizon tasks are drawn as they are needed"
            )

    def in_order(self, seed: int, n: int) -> TaskTable:
        """The first n tasks of a seed, all at time 0."""
        return self._source.in_order(seed, n)

    def representative(self) -> TaskTable:
        """Tasks that represent all, always the same ones."""
        return self.sample(0) if self.horizon is not None else self._source.representative()

    def length_sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens, i8[n] each, that represent the lengths of calls; always the same ones."""
        calls = self.representative().calls
        return calls.prompt_tokens, calls.output_tokens

    def reference_capacity(self, engine: EngineConfig) -> float:
        """Return the calls/s that an engine sustains on this mix of lengths, see `theory.capacity`."""
        return capacity(engine, self)

    def with_users(self, users: int) -> Self:
        """The same tasks for another number of users."""
        return replace(self, users=users)

    @property
    def _source(self) -> TaskSource:
        if isinstance(self.law, TaskSource):
            return self.law
        if self.law is not None:
            return AgentTasks(self.law, rate=1.0, horizon=1.0)
        lengths = self.lengths
        assert lengths is not None  # checked above
        return SingleCalls(Workload.from_table(lengths, "requests") if isinstance(lengths, RequestTable) else lengths)

    def _usual_name(self) -> str:
        name = getattr(self.law if self.lengths is None else self.lengths, "name", "closed loop")
        return name if name == "closed loop" else f"{name} by {self.users} users"

    def _at_rate(self, rate: float, load: float | None) -> Self:
        raise ValueError("the rate of a closed loop cannot be set: change users or think")

    def _draw(self, seed: int) -> TaskTable:
        if self.horizon is not None:
            return self._drawn_beforehand(seed, self.horizon)
        return self._pool(seed, _FIRST_TASKS + STARTS_AHEAD * self.users)

    def _pool(self, seed: int, n: int) -> TaskTable:
        """The first n tasks or all, to be started by users."""
        least = n if self.tasks is None else min(n, self.tasks)
        table = self._source.in_order(seed, least)
        calls = replace(table.calls, client=table.task % self.users, horizon=None)
        pool = UserPool(
            self.users,
            as_delay("think", self.think).quantile(np.random.default_rng([_THINK, seed]).random(least)),
            math.inf if self.duration is None else self.duration,
            None if least == self.tasks else partial(self._pool, seed),
        )
        return replace(table, calls=calls if self.slo is None else calls.with_slo(self.slo), pool=pool)

    def _mean_think(self) -> float:
        return float(np.mean(as_delay("think", self.think).quantile((np.arange(1000) + 0.5) / 1000)))

    def _drawn_beforehand(self, seed: int, horizon: float) -> TaskTable:
        assert isinstance(self.law, TaskLaw)  # checked above
        thinking, tasks = np.random.SeedSequence(seed).spawn(2)
        pauses = self._pauses(np.random.default_rng(thinking), horizon)
        rounds = np.array([len(own) for own in pauses])
        calls = self.law.draw(tasks, int(rounds.sum()))
        user = np.repeat(np.arange(self.users), rounds)
        begins = np.isin(np.arange(len(calls.task)), calls.edges[:, 1], invert=True)
        ends = np.isin(np.arange(len(calls.task)), calls.edges[:, 0], invert=True)
        delay = calls.delay + np.where(begins, np.concatenate(pauses)[calls.task], 0.0)
        between = _every_end_to_every_begin(calls.task, begins, ends, user)
        together = calls._replace(task=user[calls.task], delay=delay, edges=np.concatenate([calls.edges, between]))
        columns = {"client": together.task, "session": calls.task}
        return table_of_tasks(together, np.zeros(self.users), horizon, self.slo, columns)

    def _pauses(self, rng: np.random.Generator, horizon: float) -> list[np.ndarray]:
        """Think times of each user, f8[rounds] seconds, enough to fill the horizon."""
        at_once = math.ceil(horizon / self._mean_think()) + 8
        pauses = []
        for own in rng.spawn(self.users):
            drawn = np.zeros(0)
            while drawn.sum() <= horizon:
                drawn = np.append(drawn, as_delay("think", self.think).quantile(own.random(at_once)))
            pauses.append(drawn[: np.searchsorted(np.cumsum(drawn), horizon, side="right") + 1])
        return pauses


def _every_end_to_every_begin(task: np.ndarray, begins: np.ndarray, ends: np.ndarray, user: np.ndarray) -> np.ndarray:
    """Edges i8[m, 2] from all last calls of each task to all first calls of the same user's next task."""
    first, last = np.flatnonzero(begins), np.flatnonzero(ends)
    follows = np.append(False, user[1:] == user[:-1])[task[first]]
    first = first[follows]
    low = np.searchsorted(task[last], task[first] - 1, side="left")
    count = np.searchsorted(task[last], task[first] - 1, side="right") - low
    step = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    return np.column_stack([last[np.repeat(low, count) + step], np.repeat(first, count)])
