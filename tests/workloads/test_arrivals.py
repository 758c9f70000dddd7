"""Arrival processes against the moments of their law."""

import math

import numpy as np
import pytest

from llmsched_env.workloads import MMPP, Diurnal, Gamma, Poisson, Ticks, Weibull, Windows

CHAT = MMPP([0.835, 1.267], mean_dwell=[121.8, 75.3])
CODE = MMPP([0.0012, 2.656, 8.751], transition=[[0.954, 0.044, 0.002], [0.144, 0.783, 0.073], [0.051, 0.303, 0.646]])
DAY = Diurnal([1, 0, 4, 2], Gamma(2.0), period=100.0, start=30.0)
PROCESSES = [
    Poisson(),
    Gamma(0.5),
    Gamma(3.0),
    Weibull(0.6),
    CHAT,
    CODE,
    MMPP([0, 1, 3], mean_dwell=[1.0, 2.0, 0.5]),
    DAY,
    Windows(25.0, [1.0, 0.0, 3.0, 2.0], [Poisson(), Poisson(), Gamma(2.0), Weibull(1.5)]),
    Ticks(0.5, Gamma(2.0)),
]


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_times_are_sorted_within_the_horizon_and_come_from_the_seed(process):
    times = process.times(np.random.default_rng(1), 5.0, 300.0)
    assert times.dtype == np.float64 and len(times) > 100
    assert times[0] >= 0 and times[-1] < 300 and (np.diff(times) >= 0).all()
    assert np.array_equal(times, process.times(np.random.default_rng(1), 5.0, 300.0))
    assert not np.array_equal(times[:50], process.times(np.random.default_rng(2), 5.0, 300.0)[:50])


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_mean_rate_is_the_one_asked_for(process):
    counts = np.array([len(process.times(np.random.default_rng(seed), 4.0, 500.0)) for seed in range(200)])
    assert abs(counts.mean() - 2000) <= 4 * counts.std(ddof=1) / math.sqrt(len(counts))


def test_poisson_gaps_are_exponential():
    gaps = np.diff(Poisson().times(np.random.default_rng(5), 2.0, 20_000.0))
    n = len(gaps)
    assert abs(gaps.mean() - 0.5) <= 4 * 0.5 / math.sqrt(n)
    # Of an exponential law the variance over the squared mean is 1, its estimate has a standard error of sqrt(8/n).
    assert abs(gaps.var() / gaps.mean() ** 2 - 1) <= 4 * math.sqrt(8 / n)


@pytest.mark.parametrize("process", [Gamma(0.5), Gamma(2.0), Weibull(0.7), Weibull.of_cv(0.6)], ids=repr)
def test_gaps_have_the_variation_asked_for(process):
    gaps = np.diff(process.times(np.random.default_rng(2), 4.0, 30_000.0))
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(process.cv, rel=0.05)


def test_weibull_of_cv_inverts_the_variation():
    assert Weibull.of_cv(1.0).shape == pytest.approx(1.0) and Weibull.of_cv(2.0).cv == pytest.approx(2.0)


@pytest.mark.parametrize("process", [Gamma(3.0), Weibull(0.5)], ids=repr)
def test_bursty_arrivals_are_stationary_from_the_start(process):
    counts = np.array([len(process.times(np.random.default_rng(seed), 1.0, 2.0)) for seed in range(6000)])
    assert abs(counts.mean() - 2.0) <= 4 * counts.std() / math.sqrt(len(counts))


def test_the_rate_follows_the_parts_of_the_period():
    times = DAY.times(np.random.default_rng(0), 200.0, 1000.0)
    part = np.bincount((((times + 30.0) % 100) // 25).astype(int), minlength=4)
    assert part[1] == 0
    assert part[[0, 2, 3]] / part.sum() == pytest.approx(np.array([1, 4, 2]) / 7, abs=0.02)


def test_windows_repeat_with_their_own_rate():
    process = Windows(10.0, [1.0, 0.0, 3.0], [Poisson(), Poisson(), Gamma(0.1)])
    times = process.times(np.random.default_rng(0), 50.0, 600.0)
    part = np.bincount((times % 30 // 10).astype(int), minlength=3)
    assert part[1] == 0 and part[2] / part.sum() == pytest.approx(0.75, abs=0.01)


def test_ticks_move_arrivals_back():
    base = Poisson().times(np.random.default_rng(4), 3.0, 100.0)
    times = Ticks(3.0).times(np.random.default_rng(4), 3.0, 100.0)
    assert len(times) == len(base) and (base - times >= 0).all() and (base - times < 3.0).all()
    assert set(times % 3.0) == {0.0}


def test_poisson_pattern_stretches_with_the_rate():
    fast = Poisson().times(np.random.default_rng(5), 4.0, 50.0)
    slow = Poisson().times(np.random.default_rng(5), 2.0, 100.0)
    assert 2 * fast == pytest.approx(slow)


def test_longer_poisson_horizons_only_add_arrivals():
    short, long = (Poisson().times(np.random.default_rng(9), 1.0, horizon) for horizon in (1e2, 1e3))
    assert np.array_equal(short, long[: len(short)]) and len(long) > len(short)


def test_two_state_mmpp_has_the_dispersion_of_theory():
    # Counts on [0, t] of a two-state MMPP: Var/mean = 1 + 2 v/(lambda r) * (1 - (1 - exp(-r t))/(r t)), with v the
    # variance of the rate and r the sum of the two switching rates (Fischer, Meier-Hellstern, The MMPP cookbook, 1993).
    process, rate, t = MMPP([0.2, 2.0], mean_dwell=[3.0, 2.0]), 6.0, 20.0
    low, high = rate * np.array([0.2, 2.0]) / (0.6 * 0.2 + 0.4 * 2.0)
    variance, switching = 0.6 * 0.4 * (high - low) ** 2, 1 / 3 + 1 / 2
    correlated = 1 - (1 - math.exp(-switching * t)) / (switching * t)
    expected = 1 + 2 * variance / (rate * switching) * correlated
    counts = np.array([len(process.times(np.random.default_rng(seed), rate, t)) for seed in range(4000)])
    deviations = (counts - rate * t) ** 2 / (rate * t)
    assert abs(deviations.mean() - expected) <= 4 * deviations.std() / math.sqrt(len(counts))


def test_chain_in_steps_stays_as_long_as_its_matrix_says():
    # State 1 is silent and lasts 1/0.25 = 4 steps of 0.5 s on average, state 2 lasts one step: 2 s off, 0.5 s on.
    process = MMPP([0, 1], transition=[[0.75, 0.25], [1.0, 0.0]], step=0.5)
    times = process.times(np.random.default_rng(0), 400.0, 2000.0)
    busy = np.unique(np.floor(times / 0.5))
    share = len(busy) / 4000
    assert abs(share - 0.2) <= 4 * math.sqrt(0.2 * 0.8 / 4000)
    assert np.diff(busy).min() >= 2  # never two steps in a row


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gamma(0.0), "Gamma cv must be a finite number >= 0.01"),
        (lambda: Weibull(-1.0), "Weibull shape must be a finite number >= 0.1"),
        (lambda: Weibull.of_cv(0.0), "Weibull cv must be"),
        (lambda: Diurnal([0.0, 0.0]), "one of them > 0"),
        (lambda: Diurnal([1.0], start=-1.0), "Diurnal start must be"),
        (lambda: Windows(1.0, [1.0], []), "as many rates as processes and one rate > 0, got 1 and 0"),
        (lambda: Ticks(0.0), r"Ticks tick must be a finite number > 0 \(s\), got 0"),
        (lambda: MMPP([1.0], mean_dwell=[1.0]), "two states or more"),
        (lambda: MMPP([0, 0], mean_dwell=[1.0, 1.0]), "one rate > 0"),
        (lambda: MMPP([-1, 1], mean_dwell=[1.0, 1.0]), "rates_relative must be .* >= 0, got -1"),
        (lambda: MMPP([1, 2]), "exactly one of mean_dwell and transition"),
        (lambda: MMPP([1, 2], [1.0, 1.0], [[0.5, 0.5], [0.5, 0.5]]), "exactly one of"),
        (lambda: MMPP([1, 2], mean_dwell=[1.0, 0.0]), r"mean_dwell must be a finite number > 0 \(s\), got 0"),
        (lambda: MMPP([1, 2], mean_dwell=[1.0]), "one value per state, 2, got 1"),
        (lambda: MMPP([1, 2], transition=[[0.5, 0.4], [0.5, 0.5]]), "rows that sum to 1"),
        (lambda: MMPP([1, 2], transition=[[1.5, -0.5], [0.5, 0.5]]), "probabilities >= 0"),
        (lambda: MMPP([1, 2], transition=[[1.0, 0.0], [0.5, 0.5]]), "from every state to every other"),
        (lambda: MMPP([1, 2], transition=[[1.0]]), r"2 x 2 matrix, got shape \(1, 1\)"),
        (lambda: MMPP([1, 2], transition=[[0.5, 0.5], [0.5, 0.5]], step=0), "step must be a finite number > 0"),
    ],
)
def test_bad_chains_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
