"""What an engine remembers of the last while, by hand."""

import dataclasses
from math import exp, inf

import numpy as np
import pytest

import llmsched_env as ls
from llmsched_env.policies import recent
from llmsched_env.policies.index import index
from llmsched_env.policies.recent import NUM_HISTORY, PATIENCE, PROMPT, SEEN_REQUESTS, WEIGHT
from llmsched_env.simulator.compiled import interpreted

ENGINE = ls.EngineConfig(ls.Staircase(c=0.0, a=0.25, b0=4), token_budget=64)
victims, longest_for = interpreted(recent.victims), interpreted(recent.longest_for)


def remembered(workload, at):
    """The history at the first decision after time `at`."""
    history, then = np.zeros(NUM_HISTORY), []
    watch, serve = interpreted(recent.watch_arrivals), interpreted(index.compose)

    def compose(view):
        watch(view, history)
        if view.clock >= at and not then:
            then.append(history.copy())
        return serve(view)

    ls.simulate(dataclasses.replace(index, compose=compose), workload, ENGINE)
    return then[0]


def test_arrivals_are_counted_by_how_long_they_can_wait():
    # A prompt of four tokens takes 0.25 s, and so does an empty step: patience is 0.5 s less than the target.
    workload = ls.Workload.from_arrays([0.0, 1.0, 1.0, 2.0], [4] * 4, [2] * 4, slo=([0.4, 0.65, 0.69, 1e3], [9.0] * 4))
    history = remembered(workload, 2.0)
    patient = 20.0 * history[PATIENCE:]
    assert patient[[0, 2, -1]] == pytest.approx([exp(-2 / 20), 2 * exp(-1 / 20), 1.0])
    assert patient.sum() == pytest.approx(patient[[0, 2, -1]].sum())
    assert history[SEEN_REQUESTS] == 4 and history[PROMPT] == pytest.approx(np.log(4))
    assert history[WEIGHT] == pytest.approx(1 - exp(-2 / 20))


def test_victims_are_those_that_come_and_cannot_wait():
    history = np.zeros(NUM_HISTORY)
    history[[WEIGHT, PATIENCE, PATIENCE + 2]] = 1.0, 2.0, 5.0  # two a second wait up to 0.05 s, five up to 0.2 s
    assert [victims(history, t) for t in (0.0, 0.1, 0.3)] == pytest.approx([0.0, 0.2, 0.6 + 5 * 0.2])


def test_the_longest_time_for_so_many_victims_is_the_inverse_of_their_number():
    history = np.zeros(NUM_HISTORY)
    assert longest_for(history, 0.1) == inf  # nobody comes
    history[[WEIGHT, PATIENCE, PATIENCE + 2]] = 1.0, 2.0, 5.0
    assert [longest_for(history, n) for n in (0.0, 0.2, 1.6)] == pytest.approx([0.0, 0.1, 0.3])
    history[PATIENCE], history[WEIGHT] = 0.0, 0.5  # half the time seen: ten a second that can wait for 0.1 s
    for count in (0.0, 0.4, 3.0):
        assert victims(history, longest_for(history, count)) == pytest.approx(count)
    assert longest_for(history, 0.0) == pytest.approx(0.1)
