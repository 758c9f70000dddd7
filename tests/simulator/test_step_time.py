"""What schedulers predict of the length of a batch."""

import dataclasses
import math

import pytest
from hypothesis import given, settings

import baselines
from llmsched_env.compiled import interpreted
from llmsched_env.simulator.primitives import prefill_left, take, tokens_left
from llmsched_env.simulator.step_time import chunk_within, step_seconds, step_seconds_with
from tests.simulator.cases import memory_cases, run

seconds, seconds_with, within = (interpreted(f) for f in (step_seconds, step_seconds_with, chunk_within))
give, left, room = (interpreted(f) for f in (take, prefill_left, tokens_left))


def watched(scheduler, compose):
    return dataclasses.replace(scheduler, compose=compose)


@pytest.mark.parametrize("name", ["sarathi", "orca", "vllm_v0"])
@settings(max_examples=30, deadline=None)
@given(case=memory_cases())
def test_batches_last_as_long_as_predicted(name, case):
    case = case._replace(engine=dataclasses.replace(case.engine, schedule_ahead=0))  # else a batch may change meanwhile
    predicted, original = [], interpreted(baselines.get(name).compose)

    def compose(view):
        nonlocal carried
        wake = original(view)
        carried += view.batch.counts.swapped
        if view.batch.counts.num_seqs:
            before = carried - view.batch.counts.swapped  # of decisions that led to no batch: this one pays for them
            predicted.append(seconds(view) + view.law.swap_block * before)
            carried = 0
        return wake

    carried = 0
    result = run(watched(baselines.get(name), compose), case)
    assert predicted[: len(result.batches)] == pytest.approx(result.batches.duration.tolist(), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(case=memory_cases())
def test_a_chunk_within_a_time_is_the_longest_one(case):
    def compose(view):
        for i in [*view.running, *view.waiting]:
            for target in (0.0, 0.3, 0.5, 0.9, 1e9):
                most = min(5, left(view, i), room(view))
                fitting = [n for n in range(1, most + 1) if seconds_with(view, i, n) <= target]
                assert within(view, i, 5, target) == max(fitting, default=0)
            expected = seconds_with(view, i, 1)
            if give(view, i, 1) == 1 and view.batch.counts.swapped == 0:
                assert seconds(view) == pytest.approx(expected, rel=1e-12)
        return math.inf

    run(watched(baselines.sarathi, compose), case)
