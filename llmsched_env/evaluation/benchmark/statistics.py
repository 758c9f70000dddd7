"""Statistics of paired runs: intervals by resampling, corrected tests, and the aggregates of rliable.

Rows are seeds: every scheduler gets the same requests in each, so their differences are taken seed by seed. The
aggregates over cells follow R. Agarwal et al., NeurIPS 2021 (arXiv 2108.13264): interquartile mean, probability of
improvement, intervals by resampling the runs of every cell, a stratum each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
_TAIL = 2.5  # % on each side of a 95 % interval


class Interval(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class Paired(NamedTuple):
    """The mean of paired differences, its 95 % interval by bootstrap and the p-value of the two-sided paired t-test."""

    mean: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> str:
        """Whether the interval lies above 0 ("win"), below ("loss") or holds it ("tie")."""
        return "win" if self.low > 0 else "loss" if self.high < 0 else "tie"


def paired(differences: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Paired:
    """Mean of paired differences f8[n] with a percentile bootstrap over the n seeds.

    The p-value is that of the t-test: one of a bootstrap is no smaller than one over the resamples, too coarse to be
    corrected for many cells. Without variation it is 1 for a mean of 0, and 0 for another.

    Raises:
        ValueError: with fewer than two differences, or one that is not finite.
    """
    differences = _checked(differences)
    means = _resampled_means(differences, resamples, seed)
    low, high = np.percentile(means, [_TAIL, 100 - _TAIL])
    return Paired(float(differences.mean()), float(low), float(high), t_test(differences))


def t_test(differences: np.ndarray) -> float:
    """Two-sided p-value that the mean of paired differences f8[n] is 0."""
    from scipy.special import stdtr

    differences = _checked(differences)
    n, mean, spread = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    if spread <= 1e-12 * abs(mean):  # as good as the same in every seed
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / spread * math.sqrt(n)))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values corrected for their number by Holm's step-down method, f8[m] in the given order."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return adjusted


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis: a quarter of the values, rounded down, is left out at each end."""
    values = np.sort(values, axis=-1)
    n = values.shape[-1]
    cut = n // 4
    return values[..., cut : n - cut].mean(axis=-1)


def stratified(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    of_cell: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    over_cells: Callable[[np.ndarray], np.ndarray],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A number over cells, with the interval that resampling the seeds within every cell gives.

    Args:
        pairs: (ours, theirs) of each cell, f8[n] each, by seed.
        of_cell: from both and the weights f8[resamples, n] of the seeds to a number per resample, f8[resamples].
        over_cells: from the numbers of all cells, f8[resamples, cells], to one, f8[resamples].
        resamples: how many.
        seed: of the resampling.

    Raises:
        ValueError: without cells.
    """
    if not pairs:
        raise ValueError("pairs is empty; at least one cell is needed")
    rng = np.random.default_rng(seed)
    once = [of_cell(ours, theirs, np.full((1, len(ours)), 1 / len(ours))) for ours, theirs in pairs]
    drawn = [of_cell(ours, theirs, _weights(rng, len(ours), resamples)) for ours, theirs in pairs]
    low, high = np.percentile(over_cells(np.stack(drawn, axis=-1)), [_TAIL, 100 - _TAIL])
    return Interval(float(over_cells(np.stack(once, axis=-1))[0]), float(low), float(high))


def reduction(ours: np.ndarray, theirs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the mean cost of `theirs` that `ours` saves; 0 where both cost nothing.

    It is no less than -9, ten times the cost, so that it exists where theirs is next to nothing.
    """
    own, other = weights @ ours, weights @ theirs
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(own == other, 0.0, np.maximum(1 - own / other, -9.0))


def improvement(ours: np.ndarray, theirs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Probability that a run of `ours` costs less than one of `theirs`, ties by half.

    As in rliable all runs of one are compared with all of the other: it says how far the cost of both is apart in view
    of how much seeds differ. Resamples of both are independent, for theirs those of the next row: with the same seeds
    drawn of both, a run would be compared with that on its own requests more often than with others.
    """
    difference = ours[:, None] - theirs
    others = np.roll(weights, 1, axis=0)
    return ((weights @ ((difference < 0) + 0.5 * (difference == 0))) * others).sum(axis=-1)


def paired_improvement(ours: np.ndarray, theirs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the seeds in which `ours` costs less than `theirs` on the same requests, ties by half."""
    return weights @ ((ours < theirs) + 0.5 * (ours == theirs))


def saved(ours: np.ndarray, theirs: np.ndarray) -> float:
    """`reduction` with the same weight for all seeds."""
    return float(reduction(ours, theirs, np.full((1, len(ours)), 1 / len(ours)))[0])


def mean_over_cells(values: np.ndarray) -> np.ndarray:
    """Mean along the last axis."""
    return values.mean(axis=-1)


def _checked(differences: np.ndarray) -> np.ndarray:
    differences = np.asarray(differences, float)
    if differences.ndim != 1 or len(differences) < 2 or not np.isfinite(differences).all():
        raise ValueError(f"differences must be at least two finite numbers, got {differences!r}")
    return differences


def _resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    return _weights(np.random.default_rng(seed), len(values), resamples) @ values


def _weights(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """f8[resamples, n]: how often each of n values is drawn in each resample, over n."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * resamples).reshape(resamples, n) / n
