"""Andes on cases worked out by hand; every batch takes a tenth of a second."""

import numpy as np
import pytest

import llmsched_env as ls
from baselines import andes, sarathi
from baselines.fairness.andes import read_on

LAW = ls.Staircase(c=0.1, a=0.0, b0=1)


def simulate(scheduler, arrival, prompt, output, slo=None, horizon=None, **limits):
    workload = ls.Workload.from_arrays(arrival, prompt, output, slo=slo)
    engine = ls.EngineConfig(LAW, block_size=1, **limits)
    return ls.simulate(scheduler, workload, engine, horizon=horizon, interpreted=True).requests


@pytest.mark.parametrize(
    ("there", "speed", "rate", "seconds", "read", "area"),
    [
        (10.0, 2.0, 0.0, 3.0, 6.0, 9.0),  # still behind what is there
        (4.0, 2.0, 0.0, 3.0, 4.0, 8.0),  # all read after 2 s: 4, and 4 more in the last second
        (2.0, 2.0, 1.0, 4.0, 6.0, 14.0),  # catches up after 2 s at 4 tokens (4), then a token a second: 4 * 2 + 2
        (0.0, 2.0, 5.0, 3.0, 6.0, 9.0),  # tokens come faster than they are read
        (0.0, 2.0, 0.0, 3.0, 0.0, 0.0),  # nothing to read
    ],
)
def test_a_reader(there, speed, rate, seconds, read, area):
    assert read_on.py_func(0.0, there, speed, rate, seconds) == (read, area)


# 54 blocks. Two requests of 10 + 40 tokens, read at 2 tokens/s, hold 48 of them at 1.5 s: each user has 15 tokens, of
# which not even 3 are read. A third, 10 + 10 tokens, comes and finds no memory.
CASE = {"arrival": [0.0, 0.0, 1.5], "prompt": [10] * 3, "output": [40, 40, 10], "kv_blocks": 54}
QUICK = {"quantum": 5, "reading_speed": 2.0, "ttft": 0.5, "pressure": 0.8}


def test_who_is_far_ahead_of_his_reader_is_paused_for_one_who_has_nothing():
    fair, fcfs = simulate(andes(**QUICK), **CASE), simulate(sarathi, **CASE)
    assert fair.first_token[2] < 2.5 < fcfs.first_token[2]
    assert fair.preemptions[:2].sum() >= 1 and fair.preemptions[2] == 0
    assert (fair.status == "finished").all()
    # Nobody's reader notices: token n is there by the time at which it is expected.
    assert (fair.first_token - fair.arrival < 1.0).all()
    assert (fair.finish - fair.first_token <= (fair.output_tokens - 1) / 2.0).all()


def test_a_request_preempted_often_enough_is_left_alone():
    capped = simulate(andes(**QUICK, max_preemptions=0), **CASE)
    assert capped.first_token[2] == simulate(sarathi, **CASE).first_token[2]


def test_without_pressure_it_is_first_come_first_served():
    for limits in ({"kv_blocks": 400}, {}):
        rows = [simulate(s, **{**CASE, "kv_blocks": None, **limits}) for s in (andes(**QUICK), sarathi)]
        assert rows[0].finish.tolist() == rows[1].finish.tolist() and rows[0].preemptions.sum() == 0


@pytest.mark.parametrize(("prompt", "first"), [([43, 10], 3), ([10, 43], 2)])
def test_the_smaller_one_is_chosen(prompt, first):
    # As above with two that come at 1.5 s. Both gain as much, but 11 and 44 tokens do not fit together: the greedy
    # choice is the smaller one, and then one of the first two.
    case = {"arrival": [0.0, 0.0, 1.5, 1.5], "prompt": [10, 10, *prompt], "output": [40, 40, 10, 10], "kv_blocks": 54}
    rows = simulate(andes(**QUICK), **case)
    assert np.argsort(rows.first_token)[2] == first


def test_a_reader_who_expects_more_speed_is_served():
    # The first two are alike but for their readers: one reads 50 tokens/s and is behind, the other 1 and is ahead.
    for slow in (0, 1):
        tpot = [0.02, 0.02, 0.5]
        tpot[slow] = 1.0
        rows = simulate(andes(quantum=5, pressure=0.8), **CASE, slo=([0.5] * 3, tpot), horizon=2.0)
        assert rows.preemptions[slow] == 1 and rows.preemptions.sum() == 1 and rows.generated[2] > 0
