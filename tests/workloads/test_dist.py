"""Distributions: samples follow their own law and mean."""

import math

import numpy as np
import pytest
from scipy import stats

from llmsched_env.workloads import dist

N = 40_000
LAWS = [
    dist.Constant(129),
    dist.Uniform(1, 6),
    dist.Geometric(1),
    dist.Geometric(1.3),
    dist.Geometric(112.5),
    dist.Poisson(0.4),
    dist.Poisson(512),
    dist.LogNormal(0.1, 0.8),
    dist.LogNormal(6.5, 1.2),
    dist.LogNormal(8, 0.001),
    dist.Quantiles([0, 50, 90, 100], [6, 6, 100, 1000]),
    dist.Quantiles([0, 100], [1, 2]),
    dist.Empirical([5, 1, 1, 90]),
]


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_samples_are_token_counts_with_the_stated_mean(law):
    tokens = law.sample(np.random.default_rng(7), N)
    assert tokens.dtype == np.int64 and tokens.shape == (N,) and tokens.min() >= 1
    assert abs(tokens.mean() - law.mean) <= 4 * tokens.std() / math.sqrt(N) + 1e-9


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_quantile_covers_the_unit_interval_and_does_not_decrease(law):
    tokens = law.quantile(np.array([0.0, 1e-12, 0.25, 0.5, 0.75, 1 - 1e-12, np.nextafter(1.0, 0.0)]))
    assert tokens[0] >= 1 and (np.diff(tokens) >= 0).all()


def test_exact_means():
    assert dist.Uniform(1, 6).mean == 3.5
    assert dist.Empirical([5, 1, 1, 90]).mean == 24.25
    # Log-linear from 1 to 2, rounded: 2 from ln(3/2)/ln 2 of the way on.
    assert dist.Quantiles([0, 100], [1, 2]).mean == pytest.approx(2 - math.log(1.5) / math.log(2))
    # Half of the mass is an atom at 10, the rest spreads over 10 and 11.
    atom = dist.Quantiles([0, 50, 100], [10, 10, 11])
    assert atom.mean == pytest.approx(10 + 0.5 * (1 - math.log(1.05) / math.log(1.1)))


def test_lognormal_mean_counts_the_rounding():
    law = stats.lognorm(s=0.8, scale=math.exp(0.1))
    k = np.arange(1, 10_000)
    assert dist.LogNormal(0.1, 0.8).mean == pytest.approx(1 + law.sf(k + 0.5).sum(), rel=1e-6)
    assert dist.LogNormal(7, 1).mean == pytest.approx(math.exp(7.5), rel=1e-3)


def test_geometric_law():
    tokens = dist.Geometric(2.5).sample(np.random.default_rng(3), N)
    counts = np.bincount(tokens, minlength=9)
    observed = np.append(counts[1:8], counts[8:].sum())
    expected = N * np.append(stats.geom.pmf(np.arange(1, 8), 0.4), stats.geom.sf(7, 0.4))
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_poisson_law_counts_zero_as_one():
    tokens = dist.Poisson(1.5).sample(np.random.default_rng(3), N)
    for k in range(1, 7):
        share = stats.poisson.pmf(k, 1.5) + (stats.poisson.pmf(0, 1.5) if k == 1 else 0)
        assert abs(np.mean(tokens == k) - share) <= 4.5 * math.sqrt(share / N)
    assert dist.Poisson(1.5).mean == 1.5 + math.exp(-1.5)


def test_quantile_table_is_met_at_its_knots_and_log_linear_between():
    law = dist.Quantiles([0, 50, 90, 100], [8, 32, 200, 3200])
    assert law.quantile(np.array([0.0, 0.25, 0.5, 0.9, 0.95])).tolist() == [8, 16, 32, 200, 800]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dist.Constant(0), "Constant tokens must be an integer >= 1, got 0"),
        (lambda: dist.Uniform(0, 5), "Uniform low must be an integer >= 1, got 0"),
        (lambda: dist.Uniform(5, 4), "Uniform high must be an integer >= 5, got 4"),
        (lambda: dist.Geometric(0.9), "Geometric mean must be a finite number >= 1"),
        (lambda: dist.Poisson(0), "Poisson rate must be a finite number > 0"),
        (lambda: dist.LogNormal(5, 0), "LogNormal sigma must be a finite number > 0"),
        (lambda: dist.LogNormal(math.nan, 1), "LogNormal mu must be .* got nan"),
        (lambda: dist.Quantiles([0, 50], [1, 2]), "levels must increase from 0 to 100"),
        (lambda: dist.Quantiles([0, 50, 50, 100], [1, 2, 3, 4]), "levels must increase"),
        (lambda: dist.Quantiles([0, 100], [2, 1]), "tokens must not decrease"),
        (lambda: dist.Quantiles([0, 100], [1, 2, 3]), "as many levels as tokens"),
        (lambda: dist.Quantiles([0, 100], [0, 2]), "Quantiles tokens must be an integer >= 1, got 0"),
        (lambda: dist.Empirical([]), "at least one"),
        (lambda: dist.Empirical([3, 0]), "Empirical tokens must be an integer >= 1, got 0"),
    ],
)
def test_bad_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_histogram_draws_by_weight_in_order_of_tokens():
    law = dist.Histogram([7, 3, 5], [1.0, 2.0, 1.0])
    assert law.quantile(np.array([0.0, 0.49, 0.5, 0.74, 0.75, 0.999])).tolist() == [3, 3, 5, 5, 7, 7]
    assert law.mean == 4.5
    with pytest.raises(ValueError, match="as many tokens as weights and one weight > 0, got 1 and 2"):
        dist.Histogram([1], [1.0, 2.0])
    with pytest.raises(ValueError, match="Histogram tokens must be an integer >= 1 and .*, got 0"):
        dist.Histogram([0], [1.0])
