"""Shortest remaining processing time: by hand, against other orders, and against the formula for M/G/1."""

import itertools
import math

import numpy as np
import pytest

from llmsched_env.theory import mg1_srpt, srpt_flow_times


def test_a_shorter_one_goes_first_and_a_longer_one_waits():
    # 0-1: A. At 1 B (1 s) beats A (4 left). C (2.5 s) comes at 3, when A has 3 left, and beats it. A ends at 8.5.
    assert srpt_flow_times([0, 1, 3], [5, 1, 2.5]).tolist() == [8.5, 1.0, 2.5]


def test_ties_go_to_the_earlier_request_and_idle_time_counts_for_nothing():
    assert srpt_flow_times([0, 2, 10], [4, 2, 1]).tolist() == [4.0, 4.0, 1.0]
    assert srpt_flow_times([], []).size == 0


def test_no_preemptive_order_of_priorities_is_better():
    rng = np.random.default_rng(0)
    for _ in range(50):
        arrival, work = np.sort(rng.integers(0, 12, 5)), rng.integers(1, 8, 5)
        best = srpt_flow_times(arrival, work).sum()
        orders = [by_priority(arrival, work, order) for order in itertools.permutations(range(5))]
        assert best <= min(orders) + 1e-9


def by_priority(arrival, work, order):
    """Sum of times in system when the first of `order` that is there is served, second by second."""
    left, total, clock = work.copy(), 0, 0
    while left.any():
        there = [i for i in order if left[i] and arrival[i] <= clock]
        clock += 1
        if there:
            left[there[0]] -= 1
            total += 0 if left[there[0]] else clock - arrival[there[0]]
    return total


def test_equal_services_wait_as_in_m_d_1():
    rate, seconds = 0.08, 10.0
    rho = rate * seconds
    assert mg1_srpt(rate, [5.0, 5.0], speed=0.5) == pytest.approx(seconds + rho * seconds / (2 * (1 - rho)))
    assert mg1_srpt(0.1, [10.0]) == math.inf


def test_two_services_by_hand():
    # rate 0.25; 1 or 3 s with equal chance; load 0.125 of the short ones, 0.5 in all. A short one waits
    # 0.25 (0.5 + 0.5)/(2 * 0.875), as long ones count from 1 s left on; a long one 0.25 * 5/(2 * 0.5 * 0.875), and its
    # service takes 1 + 2/0.875.
    short = 1 + 0.25 / 1.75
    long = 1.25 / 0.875 + 1 + 2 / 0.875
    assert mg1_srpt(0.25, [1.0, 3.0]) == pytest.approx((short + long) / 2)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_the_formula_agrees_with_simulation(load):
    rng = np.random.default_rng(1)
    sample = np.ceil(rng.lognormal(4.0, 1.0, 200))
    speed = 1000.0
    rate = load * speed / sample.mean()
    means = []
    for _ in range(60):
        n = 6000
        arrival = np.cumsum(rng.exponential(1 / rate, n))
        means.append(srpt_flow_times(arrival, rng.choice(sample, n) / speed)[500:-500].mean())
    error = np.std(means, ddof=1) / math.sqrt(len(means))
    assert abs(np.mean(means) - mg1_srpt(rate, sample, speed)) < 4 * error
    assert 4 * error < 0.05 * np.mean(means)  # first come first served takes more than twice as long


@pytest.mark.parametrize("bad", [[], [0.0, 1.0], [[1.0]], [math.nan]])
def test_bad_samples_are_refused(bad):
    with pytest.raises(ValueError, match="work must be a sample"):
        mg1_srpt(1.0, bad)
