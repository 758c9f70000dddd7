"""What an engine remembers of the last while, by hand."""

import dataclasses
from math import exp, inf

import numpy as np
import pytest

import llmsched_env as ls
from llmsched_env.compiled import interpreted
from llmsched_env.fields import records
from llmsched_env.policies import arrivals
from llmsched_env.policies.arrivals import RECENT
from llmsched_env.policies.index import index

ENGINE = ls.EngineConfig(ls.Staircase(c=0.0, a=0.25, b0=4), token_budget=64)
expected_late, longest_wait = interpreted(arrivals.expected_late), interpreted(arrivals.longest_wait)


def remembered(workload, at):
    """The record at the first decision after time `at`."""
    recent, then = records(RECENT)[0], []
    watch, serve = interpreted(arrivals.watch_arrivals), interpreted(index.compose)

    def compose(view):
        watch(view, recent)
        if view.clock >= at and not then:
            then.append(recent.copy())
        return serve(view)

    ls.simulate(dataclasses.replace(index, compose=compose), workload, ENGINE)
    return then[0]


def test_arrivals_are_counted_by_how_long_they_can_wait():
    # A prompt of four tokens takes 0.25 s, and so does an empty step: patience is 0.5 s less than the target.
    workload = ls.Workload.from_arrays([0.0, 1.0, 1.0, 2.0], [4] * 4, [2] * 4, slo=([0.4, 0.65, 0.69, 1e3], [9.0] * 4))
    recent = remembered(workload, 2.0)
    patient = 20.0 * recent.patience
    assert patient[[0, 2, -1]] == pytest.approx([exp(-2 / 20), 2 * exp(-1 / 20), 1.0])
    assert patient.sum() == pytest.approx(patient[[0, 2, -1]].sum())
    assert recent.num_seen == 4 and recent.log_prompt == pytest.approx(np.log(4))
    assert recent.weight == pytest.approx(1 - exp(-2 / 20))


def record(weight, patience):
    recent = records(RECENT)[0]
    recent.weight = weight
    for k, rate in patience.items():
        recent.patience[k] = rate
    return recent


def test_late_are_those_that_come_and_cannot_wait():
    recent = record(1.0, {0: 2.0, 2: 5.0})  # two a second wait up to 0.05 s, five up to 0.2 s
    assert [expected_late(recent, t) for t in (0.0, 0.1, 0.3)] == pytest.approx([0.0, 0.2, 0.6 + 5 * 0.2])


def test_the_longest_wait_is_the_inverse_of_the_number_that_is_late():
    assert longest_wait(record(0.0, {}), 0.1) == inf  # nobody comes
    recent = record(1.0, {0: 2.0, 2: 5.0})
    assert [longest_wait(recent, n) for n in (0.0, 0.2, 1.6)] == pytest.approx([0.0, 0.1, 0.3])
    recent = record(0.5, {2: 5.0})  # half the time seen: ten a second that can wait for 0.1 s
    for count in (0.0, 0.4, 3.0):
        assert expected_late(recent, longest_wait(recent, count)) == pytest.approx(count)
    assert longest_wait(recent, 0.0) == pytest.approx(0.1)
