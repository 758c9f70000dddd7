"""Tasks of agents of several kinds, drawn for every seed with random arrivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from llmsched_env.slo import SLO
from llmsched_env.tables.request_table import RequestTable, constant
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.validation import check_number
from llmsched_env.workloads.arrivals import ArrivalProcess, Poisson
from llmsched_env.workloads.predictors import Predictor
from llmsched_env.workloads.task_graphs import TaskCalls, TaskLaw
from llmsched_env.workloads.task_sources import TaskSource

_REPRESENTATIVE = 2048  # tasks of a representative sample
_BLOCK = 256  # tasks in order are drawn in blocks of so many


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

    def in_order(self, seed: int, n: int) -> TaskTable:
        """The first n tasks of a seed, each of a kind drawn by the weights, all at time 0."""
        blocks = -(-n // _BLOCK)  # with random streams of their own, so that more tasks begin with the same ones
        kinds, predictions, *laws = np.random.SeedSequence(seed).spawn(2 + len(self._kinds))
        shares = np.cumsum(self._shares)[:-1]
        kind = np.searchsorted(shares, np.random.default_rng(kinds).random(blocks * _BLOCK), side="right")
        places = [np.flatnonzero(kind == k).astype(float) for k in range(len(self._kinds))]
        drawn = [_first_tasks(own.law, s, len(p)) for own, s, p in zip(self._kinds, laws, places, strict=True)]
        calls, kind_of_call = in_order(drawn, places)
        predicted = None
        if self.predictor is not None:
            predicted = np.empty(len(calls.task))
            for k, stream in enumerate(predictions.spawn(blocks)):
                own = calls.task // _BLOCK == k
                rng = np.random.default_rng(stream)
                predicted[own] = self.predictor(rng, calls.prompt_tokens[own], calls.output_tokens[own])
        columns = {"client": kind_of_call, "predicted_output": predicted}
        return table_of_tasks(calls, np.zeros(len(kind)), None, self.slo, columns).first(n)

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


def _first_tasks(law: TaskLaw, seed: np.random.SeedSequence, n: int) -> TaskCalls:
    """The first n tasks of a law, drawn in blocks, and possibly some more."""
    parts = [law.draw(stream, _BLOCK) for stream in seed.spawn(max(1, -(-n // _BLOCK)))]
    before = np.cumsum([0, *(len(part.task) for part in parts)])
    calls = TaskCalls(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    shift = np.repeat(before[:-1], np.diff(before))
    task = calls.task + _BLOCK * np.repeat(np.arange(len(parts)), np.diff(before))
    edges = np.concatenate([part.edges + first for part, first in zip(parts, before[:-1], strict=True)])
    parent = np.where(calls.parent < 0, -1, calls.parent + shift)
    kept = task < n
    columns = {name: column[kept] for name, column in calls._asdict().items() if name != "edges"}
    columns |= {"task": task[kept], "parent": parent[kept]}
    return TaskCalls(**columns, edges=edges[edges[:, 1] < np.count_nonzero(kept)])


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
    horizon: float | None,
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
