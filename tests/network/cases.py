"""Random tasks on small networks, and a check of their rows that reads nothing but rows and the table."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import llmsched_env as ls
from llmsched_env.results.records import NetworkResult
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.tables.task_table import TaskTable


class Case(NamedTuple):
    tasks: TaskTable
    engines: tuple[ls.EngineConfig, ...]


def table(arrival, prompt, output, *, edges=(), task=None, engine=None, delay=None, **columns) -> TaskTable:
    """A table of tasks from plain lists."""
    calls = RequestTable.from_columns(arrival=arrival, prompt_tokens=prompt, output_tokens=output, **columns)
    return TaskTable.from_columns(calls, task, edges, delay, engine)


def small_case(integer: Callable[[int, int], int], limited: bool = True) -> Case:
    """Tasks of 1 to 4 calls, joined at random, on 1 to 3 engines, from `integer(low, high)`.

    `session` is the number of the call, so that rows can be told apart; prompts may share prefixes inside a task.
    """
    unit = 2.0**-8 if integer(0, 1) else 0.0037
    tasks, engines = integer(1, 5), integer(1, 3)
    task = np.repeat(np.arange(tasks), [integer(1, 4) for _ in range(tasks)])
    n = len(task)
    start = np.cumsum([8 * unit * integer(0, 12) for _ in range(tasks)])
    edges = [(a, b) for b in range(n) for a in range(b) if task[a] == task[b] and integer(0, 2) > 0]
    prompt = np.array([integer(1, 14) for _ in range(n)])
    output = np.array([integer(1, 7) for _ in range(n)])
    parent = np.array([i - 1 if i and task[i] == task[i - 1] and integer(0, 1) else -1 for i in range(n)])
    most = np.where(parent < 0, 0, np.minimum(prompt, (prompt + output)[parent]))
    caching = integer(0, 1) == 1
    machines = tuple(
        ls.EngineConfig(
            ls.Staircase(c=32 * unit, a=16 * unit, b0=integer(1, 8)),
            token_budget=integer(2, 28),
            max_num_seqs=integer(1, 5) if limited and integer(0, 1) else None,
            kv_blocks=integer(8, 20) if limited and integer(0, 1) else None,
            block_size=integer(1, 4),
            first_token=("with_prefill", "separate")[integer(0, 1)],
            schedule_ahead=integer(0, 1),
            prefix_caching=caching,
        )
        for _ in range(engines)
    )
    tasks_ = table(
        start[task],
        prompt,
        output,
        task=task,
        edges=edges,
        engine=[integer(-1, engines - 1) for _ in range(n)],
        delay=[8 * unit * integer(0, 3) for _ in range(n)],
        klass=[integer(0, 2) for _ in range(n)],
        session=np.arange(n),
        parent=parent,
        shared_tokens=[integer(0, int(m)) for m in most],
        predicted_output=[float(integer(1, 7)) for _ in range(n)],
    )
    return Case(tasks_, machines)


def seeded_case(seed: int, limited: bool = True) -> Case:
    rng = np.random.default_rng(seed)
    return small_case(lambda low, high: int(rng.integers(low, high + 1)), limited)


def run(case: Case, schedulers, router: Router, horizon: float | None = 400.0, **options) -> NetworkResult:
    return simulate_network(schedulers, case.tasks, case.engines, router, horizon=horizon, record="entries", **options)


def check_rows(result: NetworkResult, tasks: TaskTable) -> None:
    """Precedence, delays, pins, and every token of every call."""
    rows, batches, entries = result.requests, result.batches, result.batch_entries
    row_of = np.full(len(tasks), -1)
    row_of[rows.session] = np.arange(len(rows))
    done = np.full(len(tasks), np.nan)
    done[rows.session] = rows.finish
    before = [tasks.edges[tasks.edges[:, 1] == i, 0] for i in range(len(tasks))]
    for i in range(len(tasks)):
        ready = max(tasks.arrival[tasks.task[i]], np.max(done[before[i]], initial=0.0)) + tasks.delay[i]
        if np.isnan(done[before[i]]).any():
            ready = np.nan
        if row_of[i] < 0:  # something before it has not finished, or it would be ready later
            assert not ready <= result.end
        else:
            assert rows.arrival[row_of[i]] == ready
    assert np.array_equal(rows.task, tasks.task[rows.session])
    pinned = tasks.engine[rows.session]
    assert np.all((pinned < 0) | (rows.engine == pinned))
    finished = rows.status == "finished"
    assert np.array_equal(rows.generated[finished], rows.output_tokens[finished])
    scheduled = ~np.isnan(rows.first_scheduled)
    assert np.all(rows.first_scheduled[scheduled] >= rows.arrival[scheduled])
    assert np.array_equal(rows.engine[entries.request], batches.engine[entries.batch])
    given = np.bincount(entries.request, weights=entries.tokens, minlength=len(rows))
    assert np.array_equal(given[finished], (rows.computed + rows.recomputed - rows.prefix_hit)[finished])
    for t in range(len(result.tasks)):
        calls = done[tasks.task == t]
        assert result.tasks.finished[t] == np.count_nonzero(~np.isnan(calls))
        assert np.array_equal(result.tasks.finish[t], calls.max(), equal_nan=True)
        assert result.tasks.calls[t] == len(calls)
