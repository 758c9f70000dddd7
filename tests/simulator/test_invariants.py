"""Conservation laws and feasibility of every run, against a second book-keeper that reads nothing but rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines
from llmsched_env.simulator.simulator import Simulator
from tests.simulator.anything import ANYTHING
from tests.simulator.cases import LONG, assert_same_rows, bound, logged, run, small_cases
from tests.simulator.replay import check_run

SCHEDULERS = pytest.mark.parametrize("scheduler", baselines.REGISTRY.values(), ids=baselines.REGISTRY)


@SCHEDULERS
@settings(max_examples=60, deadline=None)
@given(case=small_cases(limited=False))
def test_without_limits_rows_alone_tell_the_whole_run(scheduler, case):
    result, calls = run(scheduler, case), []
    if (result.requests.status == "rejected").any():  # all but when the scheduler turned somebody away
        listening, calls = logged(bound(scheduler, case))
        run(listening, case)
    check_run(result, bound(scheduler, case), calls)
    assert result.requests.preemptions.sum() == 0
    assert result.drained if scheduler.work_conserving else result.drained or result.stalled


@SCHEDULERS
@settings(max_examples=60, deadline=None)
@given(case=small_cases(), horizon=st.just(LONG) | st.floats(0.1, 4.0))
def test_with_seats_and_memory_every_token_is_accounted_for(scheduler, case, horizon):
    result = run(scheduler, case, horizon=horizon)
    scheduler, calls = logged(bound(scheduler, case))
    same = run(scheduler, case, horizon=horizon)
    assert_same_rows(result, same)
    check_run(result, scheduler, calls)
    if horizon == LONG:
        ends = result.drained or (result.stalled and not scheduler.work_conserving)
        assert ends or never_decodes(scheduler, result)
        preempted = result.requests.preemptions.sum()
        in_batches = result.batches.preemptions.sum()
        if (result.requests.status == "rejected").any():  # who was turned away after it may have been in no batch again
            assert in_batches <= preempted
        else:
            assert in_batches == preempted


def never_decodes(scheduler, result):
    """Whether `vllm_v0` wants a free block to decode the first in the queue, whose tokens so far fill the memory."""
    rows, engine = result.requests, result.engine
    first = np.flatnonzero(rows.status == "active")[0]
    blocks = -(-(rows.prompt_tokens[first] + rows.generated[first]) // engine.block_size)
    return scheduler.name == "vllm_v0" and engine.separate and engine.kv_blocks == blocks


@SCHEDULERS
@settings(max_examples=60, deadline=None)
@given(case=small_cases(), horizon=st.just(LONG) | st.floats(0.1, 4.0))
def test_results_agree_with_the_engines_own_counts(scheduler, case, horizon):
    """`Result.backlog` and `number_in_system`, computed from rows, against the counters that batches carry."""
    result = run(scheduler, case, horizon=horizon)
    rows = result.requests
    check_series(result)
    work = rows.prompt_tokens + rows.output_tokens - 1 + result.engine.separate
    assert result.backlog(result.end) == (work - rows.computed)[rows.status == "active"].sum()
    assert result.number_in_system(result.end) == np.count_nonzero(rows.status == "active")

    numbers = result.summary()
    statuses = {status: np.count_nonzero(rows.status == status) for status in ("finished", "active", "rejected")}
    assert numbers["num_requests"] == len(rows) == sum(statuses.values())
    assert numbers["completed"] == statuses["finished"]
    assert numbers["total_output_tokens"] == rows.generated[rows.status == "finished"].sum()


def check_series(result):
    assert np.array_equal(result.number_in_system(result.batches.start), result.batches.num_in_system)
    assert np.array_equal(result.backlog(result.batches.start), result.batches.backlog)


@settings(max_examples=80, deadline=None)
@given(case=small_cases())
def test_random_actions_keep_every_rule(case):
    horizon = float(case.workload.sample(0).arrival[-1]) + 20.0
    compiled = Simulator(case.engine, ANYTHING)
    assert not compiled.interpreted
    result = run(ANYTHING, case, horizon=horizon)
    scheduler, calls = logged(ANYTHING)
    assert_same_rows(result, run(scheduler, case, horizon=horizon))
    check_run(result, scheduler, calls)
    check_series(result)
