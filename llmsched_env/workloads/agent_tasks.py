"""Tasks of agents, drawn afresh for every seed: kinds of task that arrive at random, or users in a closed loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from llmsched_env.simulator.request_table import RequestTable, constant
from llmsched_env.simulator.task_table import TaskTable
from llmsched_env.slo import SLO
from llmsched_env.validation import check_integer, check_number
from llmsched_env.workloads.arrivals import ArrivalProcess, Poisson
from llmsched_env.workloads.delays import Delay, as_delay
from llmsched_env.workloads.predictors import Predictor
from llmsched_env.workloads.task_graphs import TaskCalls, TaskLaw
from llmsched_env.workloads.task_sources import TaskSource

_REPRESENTATIVE = 2048  # tasks that stand for all of them
_MOST_ROUNDS = 10**6  # tasks of a user in a closed loop


@dataclass(frozen=True, slots=True)
class TaskKind:
    """One kind of task.

    Attributes:
        law: what draws its calls.
        weight: share of all tasks, relative to the other kinds.
        arrivals: its arrival process.
    """

    law: TaskLaw
    weight: float = 1.0
    arrivals: ArrivalProcess = field(default_factory=Poisson)

    def __post_init__(self) -> None:
        check_number("weight", self.weight, above=0)


@dataclass(frozen=True, slots=True, eq=False)
class AgentTasks(TaskSource):
    """Tasks of several kinds, each arriving by a process of its own on [0, horizon) seconds.

    The client of a call is the number of its task's kind, its session the number of its task.

    Attributes:
        kinds: kinds of task, or one law that all follow.
        rate: tasks/s of all kinds together.
        horizon: seconds after which no task arrives.
        name: what reports call it.
        slo: targets of every call.
        predictor: of output lengths, as in `Workload.with_predictor`.
        load: of the busiest engine, as `at_load` set it; else None.

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
        kinds = (TaskKind(self.kinds),) if hasattr(self.kinds, "draw") else tuple(self.kinds)
        if not kinds or not all(isinstance(kind, TaskKind) for kind in kinds):
            raise ValueError(f"kinds must be a law of tasks or at least one TaskKind, got {self.kinds!r}")
        object.__setattr__(self, "kinds", kinds)
        check_number("rate", self.rate, above=0, unit="tasks/s")
        check_number("horizon", self.horizon, above=0, unit="s")

    def episode(self, rng: np.random.Generator, horizon: float) -> TaskTable:
        """Draw tasks over [0, horizon) from a seed that `rng` draws."""
        return replace(self, horizon=horizon).sample(int(rng.integers(2**63)))

    def representative(self) -> TaskTable:
        """Two thousand tasks, each kind with its share."""
        counts = [max(1, round(_REPRESENTATIVE * share)) for share in self._shares]
        times = [(np.arange(count) + 0.5) / count * self.horizon for count in counts]
        return self._table(times, np.random.SeedSequence(0))

    @property
    def _shares(self) -> np.ndarray:
        weights = np.array([kind.weight for kind in self.kinds])
        return weights / weights.sum()

    def _at_rate(self, rate: float) -> AgentTasks:
        return replace(self, rate=rate)

    def _draw(self, seed: int) -> TaskTable:
        arrivals, calls = np.random.SeedSequence(seed).spawn(2)
        streams = [np.random.default_rng(child) for child in arrivals.spawn(len(self.kinds))]
        times = [
            kind.arrivals.times(stream, self.rate * share, self.horizon)
            for kind, stream, share in zip(self.kinds, streams, self._shares, strict=True)
        ]
        return self._table(times, calls)

    def _table(self, times: list[np.ndarray], seed: np.random.SeedSequence) -> TaskTable:
        predictions, *seeds = seed.spawn(1 + len(self.kinds))
        drawn = [kind.law.draw(own, len(arrival)) for kind, own, arrival in zip(self.kinds, seeds, times, strict=True)]
        calls, kind = in_order(drawn, times)
        rng = np.random.default_rng(predictions)
        predicted = self.predictor and self.predictor(rng, calls.prompt_tokens, calls.output_tokens)
        columns = {"client": kind, "predicted_output": predicted}
        return table_of_tasks(calls, np.sort(np.concatenate(times)), self.horizon, self.slo, columns)


@dataclass(frozen=True, slots=True, eq=False)
class ClosedLoop(TaskSource):
    """Users who each begin a task, wait for its end, think, and begin the next one, for ever.

    In the table a user is one task, whose calls go on until its think times alone fill the horizon; so a run ends with
    `simulate_network(..., horizon=...)`, and what counts is its calls. The client of a call is the number of its user.
    A user's first task begins after a time to think, too.

    Attributes:
        law: what draws the tasks of users.
        users: how many there are.
        think: seconds between the end of a task and the user's next one.
        horizon: seconds that the tasks last for at least.
        name: what reports call it.
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

    def __post_init__(self) -> None:
        check_integer("users", self.users, at_least=1)
        check_number("horizon", self.horizon, above=0, unit="s")
        object.__setattr__(self, "think", as_delay("think", self.think))
        if self._mean_think() <= self.horizon / _MOST_ROUNDS:
            raise ValueError(f"think must take so long that {_MOST_ROUNDS} tasks fill the horizon, got {self.think!r}")

    @property
    def rate(self) -> float:
        """Not known beforehand: nan."""
        return math.nan

    def representative(self) -> TaskTable:
        """The tasks of seed 0."""
        return self.sample(0)

    def _at_rate(self, rate: float) -> ClosedLoop:
        raise ValueError("the rate of a closed loop cannot be set: change users or think")

    def _mean_think(self) -> float:
        return float(np.mean(self.think.quantile((np.arange(1000) + 0.5) / 1000)))

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
        """Times to think of each user, until they fill the horizon."""
        at_once = math.ceil(self.horizon / self._mean_think()) + 8
        pauses = []
        for own in rng.spawn(self.users):
            drawn = np.zeros(0)
            while drawn.sum() <= self.horizon:
                drawn = np.append(drawn, self.think.quantile(own.random(at_once)))
            pauses.append(drawn[: np.searchsorted(np.cumsum(drawn), self.horizon, side="right") + 1])
        return pauses


def in_order(drawn: Sequence[TaskCalls], times: Sequence[np.ndarray]) -> tuple[TaskCalls, np.ndarray]:
    """Bring tasks of several kinds into order of arrival.

    Args:
        drawn: calls of each kind; their `law` is renumbered, so that kinds have no law in common.
        times: f8[tasks] arrivals of each kind.

    Returns:
        All calls, and the kind i8[n] of each.
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
    columns: dict[str, np.ndarray | None],
) -> TaskTable:
    """The table of tasks that arrive at these times, f8[T] sorted; `columns` of `RequestTable` besides."""
    parent, shared = _with_system_prompts(calls)
    targets = slo or SLO()
    n = len(calls.task)
    table = RequestTable.from_columns(
        arrival[calls.task],
        calls.prompt_tokens,
        calls.output_tokens,
        parent=parent,
        shared_tokens=shared,
        klass=calls.klass,
        ttft_slo=constant(n, targets.ttft),
        tpot_slo=constant(n, targets.tpot),
        horizon=horizon,
        **{"session": calls.task, **columns},
    )
    return TaskTable.from_columns(table, calls.task, calls.edges, calls.delay, calls.engine)


def _with_system_prompts(calls: TaskCalls) -> tuple[np.ndarray, np.ndarray]:
    """Parents and shared tokens, where calls that begin anew share their law's system prompt with the first of them."""
    parent, shared = calls.parent.copy(), calls.shared_tokens.copy()
    anew = np.flatnonzero((calls.parent < 0) & (calls.system_tokens > 0))
    _, first, which = np.unique(calls.law[anew], return_index=True, return_inverse=True)
    model = anew[first][which]
    others = anew != model
    i, model = anew[others], model[others]
    parent[i] = model
    prompt = calls.prompt_tokens
    shared[i] = np.minimum(calls.system_tokens[i], np.minimum(prompt[i], prompt[model]))
    return parent, shared


def _every_end_to_every_begin(task: np.ndarray, begins: np.ndarray, ends: np.ndarray, user: np.ndarray) -> np.ndarray:
    """Edges i8[m, 2] from all last calls of a user's task to all first calls of the user's next one."""
    first, last = np.flatnonzero(begins), np.flatnonzero(ends)
    follows = np.append(False, user[1:] == user[:-1])[task[first]]
    first = first[follows]
    low = np.searchsorted(task[last], task[first] - 1, side="left")
    count = np.searchsorted(task[last], task[first] - 1, side="right") - low
    step = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    return np.column_stack([last[np.repeat(low, count) + step], np.repeat(first, count)])
