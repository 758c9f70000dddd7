"""Statistics of paired runs: cases worked out by hand, and intervals that cover as often as they say."""

import numpy as np
import pytest

from llmsched_env.evaluation.benchmark.statistics import (
    block_length,
    block_mean,
    holm,
    improvement,
    interquartile_mean,
    mean_over_cells,
    paired,
    paired_improvement,
    reduction,
    saved,
    stratified,
    t_test,
)


def test_holm_by_hand():
    # 0.01 x 4, 0.02 x 3, 0.03 x 2 -> no less than the one before, 0.9 x 1.
    assert holm([0.02, 0.9, 0.01, 0.03]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_the_t_test_is_that_of_scipy():
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(1).normal(0.3, 1, 20)
    assert t_test(values) == pytest.approx(ttest_1samp(values, 0).pvalue)
    assert t_test(np.zeros(5)) == 1.0
    assert t_test(np.full(5, 0.25)) == 0.0


def test_interquartile_mean_is_the_trimmed_mean_of_rliable():
    from scipy.stats import trim_mean

    values = np.random.default_rng(2).exponential(size=(3, 17))
    assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25, axis=1))
    assert interquartile_mean(np.array([100.0, 1, 2, -50])) == 1.5
    assert interquartile_mean(np.array([7.0])) == 7.0


def test_a_bootstrap_interval_holds_the_mean_and_decides():
    found = paired(np.array([1.0, 2.0, 3.0]))
    assert found.mean == 2.0 and found.verdict == "win"
    assert 1.0 <= found.low < 2.0 < found.high <= 3.0
    assert paired(np.array([-1.0, -2.0])).verdict == "loss"
    assert paired(np.array([-1.0, 1.0])).verdict == "tie"
    assert paired(np.zeros(4)) == (0.0, 0.0, 0.0, 1.0)


def test_bootstrap_intervals_cover():
    rng, covered, rounds = np.random.default_rng(3), 0, 400
    for _ in range(rounds):
        found = paired(rng.normal(1.0, 2.0, 24), resamples=500)
        covered += found.low <= 1.0 <= found.high
    # Percentile intervals of 24 values cover about 93 %; four standard errors of 400 rounds are 5 %.
    assert 0.88 < covered / rounds < 0.98


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan], [[1.0, 2.0]]])
def test_differences_must_be_several_finite_numbers(values):
    with pytest.raises(ValueError, match="at least two finite"):
        paired(np.array(values))


def test_what_is_saved_and_how_often():
    ours, theirs = np.array([1.0, 2.0]), np.array([2.0, 4.0])
    even, second = np.full((1, 2), 0.5), np.array([[0.0, 1.0]])
    assert saved(ours, theirs) == 0.5 and reduction(ours, theirs + 4, second) == 0.75
    assert saved(np.zeros(3), np.zeros(3)) == 0.0
    assert saved(np.ones(3), np.zeros(3)) == -9.0
    assert improvement(ours, theirs, even) == (1 + 1 + 0.5 + 1) / 4  # 1<2, 1<4, 2=2, 2<4
    assert improvement(ours, theirs, second) == 1.0
    assert improvement(ours, ours, even) == 0.5
    apart = np.eye(2)  # a resample of ours meets the next one of theirs: 1<4, 2=2
    assert improvement(ours, theirs, apart).tolist() == [1.0, 0.5]
    assert paired_improvement(ours, theirs, even) == 1.0
    four = np.full((1, 4), 0.25)
    assert paired_improvement(np.array([1.0, 5.0, 2.0, 2.0]), np.array([2.0, 4.0, 2.0, 2.0]), four) == 0.5


def test_a_stratified_interval_keeps_pairs_and_cells_together():
    rng = np.random.default_rng(4)
    theirs = [rng.uniform(1, 100, 12) for _ in range(8)]
    pairs = [(0.8 * cost, cost) for cost in theirs]  # a fifth is saved in every seed: nothing is uncertain
    assert stratified(pairs, reduction, interquartile_mean, 200) == pytest.approx((0.2, 0.2, 0.2))
    noisy = [(0.8 * cost + rng.normal(0, 5, 12), cost) for cost in theirs]
    found = stratified(noisy, reduction, interquartile_mean, 200)
    assert found.low < found.value < found.high
    assert stratified([(np.zeros(3), np.ones(3))], improvement, mean_over_cells, 50) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="at least one cell"):
        stratified([], reduction, interquartile_mean)


def autoregressive(rng, n, factor):
    noise, values = rng.normal(size=n), np.zeros(n)
    for k in range(1, n):
        values[k] = factor * values[k - 1] + noise[k]
    return values


def test_blocks_are_longer_where_values_depend_more():
    rng = np.random.default_rng(5)
    independent, dependent = block_length(rng.normal(size=5000)), block_length(autoregressive(rng, 5000, 0.9))
    assert independent <= 30 and 40 < dependent <= 250
    assert block_length(np.zeros(1000)) == 10


def test_the_block_bootstrap_widens_for_dependence():
    """An AR(1) of factor 0.9 has a mean ten times as uncertain as its noise says: standard error 10 / sqrt(n)."""
    n, errors = 4000, []
    for seed in range(8):
        found = block_mean(autoregressive(np.random.default_rng([6, seed]), n, 0.9), resamples=1000)
        errors.append((found.high - found.low) / (2 * 1.96))
    assert np.mean(errors) == pytest.approx(10 / np.sqrt(n), rel=0.25)
    alone = block_mean(np.random.default_rng(7).normal(size=n), length=1, resamples=1000)
    assert (alone.high - alone.low) / (2 * 1.96) == pytest.approx(1 / np.sqrt(n), rel=0.1)


def test_block_means_of_known_values():
    assert block_mean(np.zeros(100)) == (0.0, 0.0, 0.0, 1.0, 5)
    one = block_mean(np.ones(100), resamples=200)
    assert one[:4] == (1.0, 1.0, 1.0, 1 / 200)
    shifted = block_mean(np.tile([0.0, 1.0, 2.0], 50), length=7, resamples=500)
    assert shifted.mean == 1.0 and shifted.low < 1 < shifted.high and shifted.length == 7
    with pytest.raises(ValueError, match="at least two finite"):
        block_mean(np.array([1.0]))
