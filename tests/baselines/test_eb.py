"""EB decodes until the threshold, prefills all free slots, never both; EB+ picks what costs less."""

import dataclasses
import math

import numpy as np
import pytest

import llmsched_env as ls
from baselines import eb, eb_plus
from baselines.flow_control.eb import memory, slots_in_memory, theta0
from llmsched_env.compiled import interpreted

ENGINE = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), first_token="separate")


@pytest.mark.parametrize("theta", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_theta_solves_its_equation(theta):
    assert theta0.py_func(theta / (1 - theta) + math.log(1 - theta)) == pytest.approx(theta, rel=1e-9)


def test_theta_is_the_square_root_of_twice_a_small_ratio():
    assert theta0.py_func(1e-6) == pytest.approx(math.sqrt(2e-6), rel=1e-2)
    assert theta0.py_func(0.0) == pytest.approx(0.0, abs=1e-12)


def test_slots_are_what_memory_holds_less_a_margin():
    # At theta = 1/2, p0 = 0.1 and 20 prompt tokens a slot holds 20 + 10 ln 2 = 26.93 tokens on average; nu = 5.
    assert slots_in_memory.py_func(1000.0, 0.5, 0.1, 20.0, 1.0) == 37  # 1000/26.93 = 37.13
    assert slots_in_memory.py_func(1000.0, 0.5, 0.1, 20.0, 0.01) == 36  # (1000 - 5 ln 100)/26.93 = 36.28


def watched(scheduler, output, prompt=4, seed=0, engine=ENGINE, **params):
    """The batches, with theta, N and the requests that run and wait as each was composed."""
    inner, seen = interpreted(scheduler.compose), []

    def compose(view):
        running, waiting = len(view.running), len(view.waiting)
        wake = inner(view)
        m = memory(view)
        seen.append((m.theta, m.slots, running, waiting))
        return wake

    workload = ls.Workload.from_arrays(np.zeros(len(output)), np.full(len(output), prompt), output)
    watched_one = dataclasses.replace(scheduler, compose=compose)
    batches = ls.simulate(watched_one(**params), workload, engine, record="entries", interpreted=True).batches
    return batches, np.array(seen)


def test_prompts_come_when_the_threshold_is_reached_and_fill_all_slots():
    # All batches take 1 s, so that the ratio of costs is 1 and theta follows from p0, which is about 1/9.
    output = np.random.default_rng(2).geometric(1 / 9, 300)
    batches, seen = watched(eb, output, max_num_seqs=20, mean_output=9)
    prefill = batches.prefill_tokens > 0
    assert not (prefill & (batches.decode_tokens > 0)).any()
    thresholds = set()
    for k, (theta, slots, running, waiting) in enumerate(seen):
        threshold = max(1, round(theta * slots))
        free = slots - running
        if waiting > 0:
            assert prefill[k] == (free >= threshold)
            thresholds.add(threshold)
        if prefill[k]:
            assert batches.prefill_tokens[k] == 4 * min(free, waiting)
    assert thresholds <= set(range(6, 13)) and prefill.sum() > 20
    p0 = 300 / output.sum()
    theta, slots = seen[-1, :2]
    assert slots == 20
    assert theta / (1 - theta) + math.log(1 - theta) == pytest.approx(p0, rel=0.05)


def test_before_anyone_has_finished_the_mean_output_is_the_parameter():
    _, seen = watched(eb, np.full(60, 20), max_num_seqs=20, mean_output=50)
    assert seen[0, 0] == pytest.approx(theta0.py_func(1 / 50), rel=1e-6)
    assert seen[-1, 0] == pytest.approx(theta0.py_func(1 / 20), rel=0.1)


def test_slots_follow_the_memory():
    engine = dataclasses.replace(ENGINE, kv_blocks=200, block_size=1)
    _, seen = watched(eb, np.full(40, 10), engine=engine, mean_output=10)
    theta, slots = seen[0, :2]
    assert theta == pytest.approx(theta0.py_func(0.1), rel=1e-6)
    assert slots == slots_in_memory.py_func(200.0, theta, 0.1, 4.0, 0.01)
    assert 1 < slots < 40


def test_mixed_batches_cost_less_as_long_as_nothing_interferes():
    output = np.random.default_rng(3).geometric(0.1, 400)
    params = {"max_num_seqs": 20, "mean_output": 10}
    batches, _ = watched(eb_plus, output, **params)
    assert ((batches.prefill_tokens > 0) & (batches.decode_tokens > 0))[200:].any()
    # A mixed batch of 20 decodes costs 1 s, for two requests: 0.5 s each. Exclusive: k = 20 theta0(0.1) = 6.8, and
    # (1 + 10 ln(1/(1 - theta0)))/k = 0.76 s each. The second wins if mixing costs 0.6 s more, not if it costs 0.3 s.
    for interference, exclusive in ((0.3, False), (0.6, True)):
        batches, _ = watched(eb_plus, output, interference=interference, **params)
        mixing = np.flatnonzero((batches.prefill_tokens > 0) & (batches.decode_tokens > 0))
        finished = np.flatnonzero(batches.start > 0)[-1]
        assert (mixing[-1] < finished / 2) == exclusive
