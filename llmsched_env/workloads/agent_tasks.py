"""Tasks of agents, drawn for every seed: random arrivals of several kinds of task, or users in a closed loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from llmsched_env.slo import SLO
from llmsched_env.tables.request_table import RequestTable, constant
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.validation import check_integer, check_number
from llmsched_env.workloads.arrivals import ArrivalProcess, Poisson
from llmsched_env.workloads.delays import Delay, as_delay
from llmsched_env.workloads.predictors import Predictor
from llmsched_env.workloads.task_graphs import TaskCalls, TaskLaw
from llmsched_env.workloads.task_sources import TaskSource

_REPRESENTATIVE = 2048  # tasks of a representative sample
_MOST_ROUNDS = 10**6  # most tasks of a user in a closed loop


@dataclass(frozen=True, slots=True)
class TaskKind:
    """One kind of task.

    Attributes:
        law: law of its calls.
        weight: relative share of all tasks.
        arrivals: its arrival process.
    """

    law: TaskLaw
    weight: float = 1.0
    arrivals: ArrivalProcess = field(default_factory=Poisson)

    def __post_init__(self) -> None:
        check_number("weight", self.weight, above=0)


@dataclass(frozen=True, slots=True, eq=False)
class AgentTasks(TaskSource):
    """Tasks of several kinds, each with its own arrival process on [0, horizon) seconds.

    The client of a call is the index of its task's kind, its session the index of its task.

    Attributes:
        kinds: kinds of task, or one law for all tasks.
        rate: tasks/s of all kinds together.
        horizon: seconds after which no task arrives.
        name: its name in reports.
        slo: targets of every call.
        predictor: predictor of output lengths, as in `Workload.with_predictor`.
        load: load of the busiest engine, if set by `at_load`; else None.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    kinds: Sequence[TaskKind] | TaskLaw
    rate: float
    horizon: float
    name: str = "agents"
    slo: SLO | None = None
    predictor: Predictor | None = None
    load: float | None = None

    def __post_init__(self) -> None:
        kinds = self._kinds
        if not kinds or not all(isinstance(kind, TaskKind) for kind in kinds):
            raise ValueError(f"kinds must be a law of tasks or at least one TaskKind, got {self.kinds!r}")
        object.__setattr__(self, "kinds", kinds)
        check_number("rate", self.rate, above=0, unit="tasks/s")
        check_number("horizon", self.horizon, above=0, unit="s")

    def episode(self, rng: np.random.Generator, horizon: float) -> TaskTable:
        """Draw tasks on [0, horizon) from a seed that `rng` draws."""
        return replace(self, horizon=horizon).sample(int(rng.integers(2**63)))

    def representative(self) -> TaskTable:
        """About 2000 tasks, each kind with its share."""
        counts = [max(1, round(_REPRESENTATIVE * share)) for share in self._shares]
        times = [(np.arange(count) + 0.5) / count * self.horizon for count in counts]
        return self._table(times, np.random.SeedSequence(0))

    @property
    def _kinds(self) -> tuple[TaskKind, ...]:
        return (TaskKind(self.kinds),) if isinstance(self.kinds, TaskLaw) else tuple(self.kinds)

    @property
    def _shares(self) -> np.ndarray:
        weights = np.array([kind.weight for kind in self._kinds])
        return np.asarray(weights / weights.sum())

    def _at_rate(self, rate: float, load: float | None) -> Self:
        return replace(self, rate=rate, load=load)

    def _draw(self, seed: int) -> TaskTable:
        arrivals, calls = np.random.SeedSequence(seed).spawn(2)
        streams = [np.random.default_rng(child) for child in arrivals.spawn(len(self._kinds))]
        times = [
            kind.arrivals.times(stream, self.rate * share, self.horizon)
            for kind, stream, share in zip(self._kinds, streams, self._shares, strict=True)
        ]
        return self._table(times, calls)

    def _table(self, times: list[np.ndarray], seed: np.random.SeedSequence) -> TaskTable:
        predictions, *seeds = seed.spawn(1 + len(self._kinds))
        drawn = [kind.law.draw(own, len(arrival)) for kind, own, arrival in zip(self._kinds, seeds, times, strict=True)]
        calls, kind = in_order(drawn, times)
        rng = np.random.default_rng(predictions)
        predicted = self.predictor and self.predictor(rng, calls.prompt_tokens, calls.output_tokens)
        columns = {"client": kind, "predicted_output": predicted}
        return table_of_tasks(calls, np.sort(np.concatenate(times)), self.horizon, self.slo, columns)


@dataclass(frozen=True, slots=True, eq=False)
class ClosedLoop(TaskSource):
    """Users who start a task, wait for its end, think, and start the next one, without end.

    In the table each user is one task, with enough calls that its think times alone fill the horizon. So runs end with
    `simulate_network(..., horizon=...)`, and metrics are per call. The client of a call is the index of its user. A
    user's first task also begins after a think time.

    Attributes:
        law: law of the users' tasks.
        users: number of users.
        think: seconds between the end of a task and the user's next one.
        horizon: seconds that the tasks last at least.
        name: its name in reports.
        slo: targets of every call.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    law: TaskLaw
    users: int
    think: Delay | float
    horizon: float
    name: str = "closed loop"
    slo: SLO | None = None
    load: float | None = field(default=None, init=False)
    rate: float = field(default=math.nan, init=False)  # unknown in advance

    def __post_init__(self) -> None:
        check_integer("users", self.users, at_least=1)
        check_number("horizon", self.horizon, above=0, unit="s")
        object.__setattr__(self, "think", as_delay("think", self.think))
        if self._mean_think() <= self.horizon / _MOST_ROUNDS:
            raise ValueError(f"think must be so long that {_MOST_ROUNDS} tasks fill the horizon, got {self.think!r}")

    def representative(self) -> TaskTable:
        """The tasks of seed 0."""
        return self.sample(0)

    def _at_rate(self, rate: float, load: float | None) -> Self:
        raise ValueError("the rate of a closed loop cannot be set: change users or think")

    def _mean_think(self) -> float:
        return float(np.mean(as_delay("think", self.think).quantile((np.arange(1000) + 0.5) / 1000)))

    def _draw(self, seed: int) -> TaskTable:
        thinking, tasks = np.random.SeedSequence(seed).spawn(2)
        pauses = self._pauses(np.random.default_rng(thinking))
        rounds = np.array([len(own) for own in pauses])
        calls = self.law.draw(tasks, int(rounds.sum()))
        user = np.repeat(np.arange(self.users), rounds)
        begins = np.isin(np.arange(len(calls.task)), calls.edges[:, 1], invert=True)
        ends = np.isin(np.arange(len(calls.task)), calls.edges[:, 0], invert=True)
        delay = calls.delay + np.where(begins, np.concatenate(pauses)[calls.task], 0.0)
        between = _every_end_to_every_begin(calls.task, begins, ends, user)
        together = calls._replace(task=user[calls.task], delay=delay, edges=np.concatenate([calls.edges, between]))
        columns = {"client": together.task, "session": calls.task}
        return table_of_tasks(together, np.zeros(self.users), self.horizon, self.slo, columns)

    def _pauses(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Think times of each user, f8[rounds] seconds, enough to fill the horizon."""
        at_once = math.ceil(self.horizon / self._mean_think()) + 8
        pauses = []
        for own in rng.spawn(self.users):
            drawn = np.zeros(0)
            while drawn.sum() <= self.horizon:
                drawn = np.append(drawn, as_delay("think", self.think).quantile(own.random(at_once)))
            pauses.append(drawn[: np.searchsorted(np.cumsum(drawn), self.horizon, side="right") + 1])
        return pauses


def in_order(drawn: Sequence[TaskCalls], times: Sequence[np.ndarray]) -> tuple[TaskCalls, np.ndarray]:
    """Merge tasks of several kinds in order of arrival.

    Args:
        drawn: calls of each kind; their `law` is renumbered so that kinds share no law.
        times: f8[tasks] arrivals of each kind.

    Returns:
        All calls, and the kind of each, i8[n].
    """
    tasks = np.cumsum([0, *(len(own) for own in times)])
    calls = np.cumsum([0, *(len(own.task) for own in drawn)])
    laws = np.cumsum([0, *(int(own.law.max(initial=-1)) + 1 for own in drawn)])
    rank = np.empty(tasks[-1], np.int64)
    rank[np.argsort(np.concatenate(times), kind="stable")] = np.arange(tasks[-1])
    task = np.concatenate([rank[own.task + tasks[k]] for k, own in enumerate(drawn)])
    order = np.argsort(task, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    columns = {
        name: np.concatenate([getattr(own, name) for own in drawn])[order]
        for name in TaskCalls._fields
        if name not in ("task", "parent", "law", "edges")
    }
    parent = np.concatenate([np.where(own.parent < 0, -1, own.parent + calls[k]) for k, own in enumerate(drawn)])
    merged = TaskCalls(
        task=task[order],
        parent=np.where(parent < 0, -1, place[parent])[order],
        law=np.concatenate([own.law + laws[k] for k, own in enumerate(drawn)])[order],
        edges=place[np.concatenate([own.edges + calls[k] for k, own in enumerate(drawn)])],
        **columns,
    )
    return merged, np.repeat(np.arange(len(drawn)), np.diff(calls))[order]


def table_of_tasks(
    calls: TaskCalls,
    arrival: np.ndarray,
    horizon: float,
    slo: SLO | None,
    columns: Mapping[str, np.ndarray | None],
) -> TaskTable:
    """The table of tasks that arrive at these times, f8[T] sorted, with these other columns of `RequestTable`."""
    parent, shared = _with_system_prompts(calls)
    targets = slo or SLO()
    n = len(calls.task)
    optional: dict[str, Any] = {
        "parent": parent,
        "shared_tokens": shared,
        "klass": calls.klass,
        "ttft_slo": constant(n, targets.ttft),
        "tpot_slo": constant(n, targets.tpot),
        "session": calls.task,
        **columns,
    }
    table = RequestTable.from_columns(
        arrival[calls.task], calls.prompt_tokens, calls.output_tokens, horizon=horizon, **optional
    )
    return TaskTable.from_columns(table, calls.task, calls.edges, calls.delay, calls.engine)


def _with_system_prompts(calls: TaskCalls) -> tuple[np.ndarray, np.ndarray]:
    """Parents and shared tokens: calls without a context share their law's system prompt with the first of them."""
    parent, shared = calls.parent.copy(), calls.shared_tokens.copy()
    fresh = np.flatnonzero((calls.parent < 0) & (calls.system_tokens > 0))
    _, first, which = np.unique(calls.law[fresh], return_index=True, return_inverse=True)
    model = fresh[first][which]
    others = fresh != model
    i, model = fresh[others], model[others]
    parent[i] = model
    prompt = calls.prompt_tokens
    shared[i] = np.minimum(calls.system_tokens[i], np.minimum(prompt[i], prompt[model]))
    return parent, shared


def _every_end_to_every_begin(task: np.ndarray, begins: np.ndarray, ends: np.ndarray, user: np.ndarray) -> np.ndarray:
    """Edges i8[m, 2] from all last calls of each task to all first calls of the same user's next task."""
    first, last = np.flatnonzero(begins), np.flatnonzero(ends)
    follows = np.append(False, user[1:] == user[:-1])[task[first]]
    first = first[follows]
    low = np.searchsorted(task[last], task[first] - 1, side="left")
    count = np.searchsorted(task[last], task[first] - 1, side="right") - low
    step = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    return np.column_stack([last[np.repeat(low, count) + step], np.repeat(first, count)])
