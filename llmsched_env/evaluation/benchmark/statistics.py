"""Statistics of the benchmark: paired differences, aggregates over cells, and means of dependent values.

Every scheduler gets the same requests in each seed, so differences are paired by seed. The aggregates over cells follow
R. Agarwal et al., NeurIPS 2021 (arXiv 2108.13264): interquartile mean, probability of improvement, and intervals from
resampling the runs within every cell (a stratified bootstrap).

Consecutive requests of a trace share a queue, so whether they meet their targets is not independent. Their mean gets an
interval by the moving-block bootstrap of H. R. Kuensch (Annals of Statistics 17, 1989), with blocks that wrap around
the end so that every value counts equally.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 10_000
_TAIL = 2.5  # % on each side of a 95 % interval
_LEAST_BLOCKS = 20  # to draw from


class Interval(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """The mean of paired differences, its 95 % bootstrap interval, and the p-value of the two-sided paired t-test."""

    mean: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> Literal["win", "tie", "loss"]:
        """Whether the interval lies above 0 ("win"), below 0 ("loss") or includes it ("tie")."""
        return "win" if self.low > 0 else "loss" if self.high < 0 else "tie"


def paired(differences: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> PairedDifference:
    """Mean of paired differences f8[n] with a percentile bootstrap over the n seeds.

    The p-value is that of the t-test. A bootstrap's p-value cannot be smaller than one over the number of resamples,
    which is too coarse to be corrected for many cells.

    Raises:
        ValueError: with fewer than two differences, or one that is not finite.
    """
    differences = _checked(differences)
    rng = np.random.default_rng(seed)
    interval = stats.bootstrap(
        (differences,), np.mean, n_resamples=resamples, method="percentile", rng=rng
    ).confidence_interval
    return PairedDifference(
        mean=float(differences.mean()), low=float(interval.low), high=float(interval.high), p=t_test(differences)
    )


def t_test(differences: np.ndarray) -> float:
    """Two-sided p-value of the hypothesis that the mean of paired differences f8[n] is 0.

    Without variation over seeds it is 1 for a mean of 0 and 0 for any other.

    Raises:
        ValueError: with fewer than two differences, or one that is not finite.
    """
    differences = _checked(differences)
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    if deviation <= 1e-12 * abs(mean):
        return 1.0 if mean == 0 else 0.0
    return float(stats.ttest_1samp(differences, 0).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values adjusted for multiple tests by Holm's step-down method, f8[m] in the given order."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis: a quarter of the values, rounded down, is cut at each end."""
    return np.asarray(stats.trim_mean(values, 0.25, axis=-1))


def stratified(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    of_cell: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    over_cells: Callable[[np.ndarray], np.ndarray],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """An aggregate over cells, with a 95 % interval by resampling the seeds within every cell.

    Args:
        pairs: (ours, theirs) of each cell, f8[n] each, by seed.
        of_cell: from both and the weights f8[resamples, n] of the seeds to one number a resample, f8[resamples].
        over_cells: from the numbers of all cells, f8[resamples, cells], to their aggregate, f8[resamples].
        resamples: number of resamples.
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
    """Share of the mean cost of `theirs` that `ours` saves; 0 if both costs are 0.

    It is bounded below by -9, ten times the cost, so that it stays finite if the cost of `theirs` is close to 0.
    """
    own, other = weights @ ours, weights @ theirs
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(own == other, 0.0, np.maximum(1 - own / other, -9.0))


def improvement(ours: np.ndarray, theirs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Probability that a run of `ours` costs less than a run of `theirs`; ties count half.

    As in rliable, every run of one is compared with every run of the other, so the number relates the difference in
    cost to the variation between seeds. Both are resampled independently (`theirs` with the weights of the next
    resample). With the same seeds for both, runs on the same requests would be compared too often.
    """
    difference = ours[:, None] - theirs
    others = np.roll(weights, 1, axis=0)
    probability: np.ndarray = ((weights @ ((difference < 0) + 0.5 * (difference == 0))) * others).sum(axis=-1)
    return probability


def paired_improvement(ours: np.ndarray, theirs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the seeds in which `ours` costs less than `theirs` on the same requests; ties count half."""
    share: np.ndarray = weights @ ((ours < theirs) + 0.5 * (ours == theirs))
    return share


def saved(ours: np.ndarray, theirs: np.ndarray) -> float:
    """`reduction` with equal weights for all seeds."""
    return float(reduction(ours, theirs, np.full((1, len(ours)), 1 / len(ours)))[0])


def mean_over_cells(values: np.ndarray) -> np.ndarray:
    """Mean along the last axis."""
    return np.asarray(values.mean(axis=-1))


class BlockMean(NamedTuple):
    """A mean with its 95 % interval and two-sided p-value by the block bootstrap, and the length of the blocks."""

    mean: float
    low: float
    high: float
    p: float
    length: int


def block_length(values: np.ndarray) -> int:
    """Length of the blocks for the mean of dependent values f8[n].

    The rule of D. N. Politis and H. White (Econometric Reviews 23, 2004; corrected 2009) for circular blocks. It uses
    the autocorrelations up to twice the lag after which five in a row are small. Here the length is at least n^(1/3)
    and at most n/20.
    """
    values = np.asarray(values, float)
    n = len(values)
    least, most = max(1, round(n ** (1 / 3))), max(1, n // _LEAST_BLOCKS)
    centered = values - values.mean()
    if not centered.any():
        return int(min(least, most))
    run = 5  # the rule takes sqrt(log10(n)) where that is more, which it never is in practice
    lags = min(n - 1, math.ceil(math.sqrt(n)) + run)
    covariance = np.array([centered[: n - k] @ centered[k:] / n for k in range(lags + 1)])
    small = np.abs(covariance[1:] / covariance[0]) < 2 * math.sqrt(math.log10(n) / n)
    quiet = [k for k in range(len(small) - run + 1) if small[k : k + run].all()]
    reach = min(2 * max(quiet[0], 1), lags) if quiet else lags
    k = np.arange(1, reach + 1)
    window = np.minimum(1.0, 2 * (1 - k / reach))  # flat-top
    spread = covariance[0] + 2 * float(window @ covariance[1 : reach + 1])
    slope = 2 * float(window @ (k * covariance[1 : reach + 1]))
    if spread <= 0:
        return most
    wanted = (2 * slope**2 / (4 / 3 * spread**2)) ** (1 / 3) * n ** (1 / 3)
    return int(min(max(least, math.ceil(wanted)), most))


def block_mean(values: np.ndarray, length: int | None = None, resamples: int = RESAMPLES, seed: int = 0) -> BlockMean:
    """Mean of dependent values f8[n] with the interval of a moving-block bootstrap.

    The p-value is twice the share of resamples on the other side of 0, but at least one over their number. It is 1 if
    all values are 0.

    Args:
        values: in order of time.
        length: of the blocks; None: `block_length`.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: with fewer than two values, or one that is not finite.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"values must be at least two finite numbers, got {values!r}")
    n = len(values)
    length = min(block_length(values) if length is None else length, n)
    blocks = -(-n // length)
    total = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[:length]]))])
    whole = total[length : length + n] - total[:n]  # sum of the block that starts at each value
    rest = n - (blocks - 1) * length
    part = total[rest : rest + n] - total[:n]
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, blocks))
    means = (whole[drawn[:, 1:]].sum(axis=1) + part[drawn[:, 0]]) / n
    low, high = np.percentile(means, [2.5, 97.5])
    if not values.any():
        return BlockMean(0.0, 0.0, 0.0, 1.0, length)
    other = min((means <= 0).mean(), (means >= 0).mean())
    p = min(1, max(2 * other, 1 / resamples))
    return BlockMean(mean=float(values.mean()), low=float(low), high=float(high), p=float(p), length=length)


def _checked(differences: np.ndarray) -> np.ndarray:
    differences = np.asarray(differences, float)
    if differences.ndim != 1 or len(differences) < 2 or not np.isfinite(differences).all():
        raise ValueError(f"differences must be at least two finite numbers, got {differences!r}")
    return differences


def _weights(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """f8[resamples, n]: how often each of n values is drawn in each resample, over n."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * resamples).reshape(resamples, n) / n
