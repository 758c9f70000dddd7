"""Small random workloads on small engines: ties, limits and coincidences enough to reach every branch."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

import llmsched_env as ls
from llmsched_env.compiled import interpreted
from llmsched_env.simulator.state import EVICTED, PREEMPTED, REJECTED


class Case(NamedTuple):
    workload: ls.Workload
    engine: ls.EngineConfig
    budget: int  # the scheduler's own token budget


class Call(NamedTuple):
    """One call of a scheduler: when, and which requests it batched, preempted and turned away."""

    clock: float
    batch: list[int]
    preempted: list[int]
    rejected: list[int]


def small_case(integer: Callable[[int, int], int], limited: bool = True) -> Case:
    """A case from `integer(low, high)`, which draws an integer between both; `limited`: perhaps with seats and memory.

    In half of the cases all times are multiples of 2^-8, so that arrivals fall on batch boundaries exactly.
    """
    unit = 2.0**-8 if integer(0, 1) else 0.0037
    arrival, clock = [], 0.0
    for _ in range(integer(1, 10)):
        clock += 8 * unit * integer(0, 12)
        arrival.append(clock)
    n = len(arrival)
    workload = ls.Workload.from_arrays(
        arrival,
        [integer(1, 14) for _ in range(n)],
        [integer(1, 7) for _ in range(n)],
        client=[integer(0, 2) for _ in range(n)],
        priority=[integer(-1, 1) for _ in range(n)],
        predicted_output=[float(integer(1, 7)) for _ in range(n)],
        slo=ls.SLO(ttft=1.0, tpot=0.25),
    )
    b0 = integer(1, 8)
    law = (
        ls.Staircase(c=32 * unit, a=16 * unit, b0=b0),
        ls.Hinge(c=32 * unit, a=4 * unit, b0=b0),
        ls.Roofline(c=32 * unit, a_tok=4 * unit, a_tok_over=2 * unit, b0=b0, a_kv=unit, a_attn=unit, a_ctx=2 * unit),
        ls.TabulatedLaw(
            decode=[(1, 32 * unit), (3, 48 * unit), (5, 52 * unit), (400, 152 * unit)],
            mixed=[(2, 40 * unit), (4, 64 * unit), (12, 80 * unit), (400, 480 * unit)],
            a_seq=unit,
            a_kv_decode=unit,
            a_kv=2 * unit,
            a_attn=unit,
            a_ctx=2 * unit,
        ),
    )[integer(0, 3)]
    with_seats, with_memory = (limited and integer(0, 1) == 1 for _ in range(2))
    engine = ls.EngineConfig(
        law,
        token_budget=integer(2, 28),
        max_num_seqs=integer(1, 5) if with_seats else None,
        kv_blocks=integer(3, 12) if with_memory else None,
        block_size=integer(1, 4),
        first_token=("with_prefill", "separate")[integer(0, 1)],
        host_overhead=(8 * unit, unit) if integer(0, 1) else (0.0, 0.0),
    )
    return Case(workload, engine, integer(1, 28))


def memory_case(integer: Callable[[int, int], int]) -> Case:
    """A `small_case` with little memory, and perhaps shared prefixes and caching, swapping, timeouts, batches ahead."""
    case = small_case(integer, limited=False)
    table = case.workload.sample(0)
    n, total = len(table), table.prompt_tokens + table.output_tokens
    parent = np.array([integer(-1, k - 1) if k else -1 for k in range(n)])
    most = np.where(parent < 0, 0, np.minimum(table.prompt_tokens, total[parent]))
    caching = integer(0, 1) == 1
    engine = dataclasses.replace(
        case.engine,
        max_num_seqs=integer(1, 5) if integer(0, 1) else None,
        kv_blocks=integer(3, 16),
        schedule_ahead=integer(0, 1),
        prefix_caching=caching,
        swap_blocks=0 if caching else integer(0, 1) * integer(1, 12),
        swap_block_time=2.0**-6,
    )
    timeout = np.array([2.0**-3 * integer(1, 60) for _ in range(n)]) if integer(0, 1) else np.full(n, math.inf)
    table = dataclasses.replace(
        table, parent=parent, shared_tokens=np.array([integer(0, int(m)) for m in most]), timeout=timeout
    )
    return case._replace(workload=ls.Workload.from_table(table, "memory case"), engine=engine)


@st.composite
def small_cases(draw: st.DrawFn, limited: bool = True) -> Case:
    return small_case(lambda low, high: draw(st.integers(low, high)), limited)


@st.composite
def memory_cases(draw: st.DrawFn) -> Case:
    return memory_case(lambda low, high: draw(st.integers(low, high)))


def modest(scheduler: ls.Scheduler, tokens: int = 4) -> ls.Scheduler:
    """The scheduler expecting outputs of at most `tokens`, where it plans memory for them, and no margin beyond."""
    values = {"max_output_tokens": tokens, "max_new_tokens": tokens, "mean_output": tokens, "epsilon": 1.0}
    return scheduler(**{name: value for name, value in values.items() if name in scheduler.params})


def bound(scheduler: ls.Scheduler, case: Case) -> ls.Scheduler:
    """The scheduler with the case's token budget, if it has one, expecting outputs as short as the case's."""
    scheduler = modest(scheduler)
    return scheduler(token_budget=case.budget) if "token_budget" in scheduler.params else scheduler


LONG = 400.0  # s, enough for any case to drain; a horizon all the same, so that a run without end is a failed test


def run(scheduler: ls.Scheduler, case: Case, horizon: float = LONG, **options) -> ls.Result:
    """Simulate the case with entries; it may stall in silence."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* stalled at ", RuntimeWarning)
        return ls.simulate(
            bound(scheduler, case), case.workload, case.engine, horizon=horizon, record="entries", **options
        )


def logged(scheduler: ls.Scheduler) -> tuple[ls.Scheduler, list[Call]]:
    """The scheduler, interpreted, and the list to which it will add its calls."""
    inner, calls = interpreted(scheduler.compose), []

    def compose(view):
        wake = inner(view)
        batch = view.batch.requests[: view.batch.counts.num_seqs].tolist()
        preempted = [i for i in view.running.tolist() if view.req.phase[i] in (PREEMPTED, EVICTED)]
        rejected = [i for i in view.waiting.tolist() if view.req.phase[i] == REJECTED]
        calls.append(Call(float(view.clock), batch, preempted, rejected))
        return wake

    return dataclasses.replace(scheduler, compose=compose), calls


def assert_same_rows(a: ls.Result, b: ls.Result) -> None:
    """All rows equal, bit for bit."""
    for table in ("requests", "batches", "batch_entries", "token_gaps"):
        assert getattr(a, table).tobytes() == getattr(b, table).tobytes(), table
    assert (a.end, a.stalled) == (b.end, b.stalled)
