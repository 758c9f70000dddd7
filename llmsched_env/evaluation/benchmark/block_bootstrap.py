"""The mean of dependent values in order of time: intervals by resampling blocks.

Requests that follow each other share a queue, so whether they meet their targets is no independent draw. The moving
blocks of H. R. Kuensch (Annals of Statistics 17, 1989), taken around the end so that every value counts alike, keep the
dependence within a block.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from llmsched_env.evaluation.benchmark.statistics import RESAMPLES

_LEAST_BLOCKS = 20  # so many blocks are left to draw from


class BlockMean(NamedTuple):
    """A mean with its 95 % interval and two-sided p-value by the bootstrap, and the length of its blocks."""

    mean: float
    low: float
    high: float
    p: float
    length: int


def block_length(values: np.ndarray) -> int:
    """Length of blocks for the mean of dependent values f8[n].

    The rule of D. N. Politis and H. White (Econometric Reviews 23, 2004; corrected 2009) for circular blocks: from the
    autocorrelations up to twice the lag after which five in a row are small. At least n^(1/3), and
    at most n/20.
    """
    values = np.asarray(values, float)
    n = len(values)
    least, most = max(1, round(n ** (1 / 3))), max(1, n // _LEAST_BLOCKS)
    centered = values - values.mean()
    if not centered.any():
        return min(least, most)
    run = 5  # the rule: or the root of log10 n, which is less for any n
    lags = min(n - 1, math.ceil(math.sqrt(n)) + run)
    covariance = np.array([centered[: n - k] @ centered[k:] / n for k in range(lags + 1)])
    small = np.abs(covariance[1:] / covariance[0]) < 2 * math.sqrt(math.log10(n) / n)
    quiet = [k for k in range(len(small) - run + 1) if small[k : k + run].all()]
    reach = min(2 * max(quiet[0], 1), lags) if quiet else lags
    k = np.arange(1, reach + 1)
    window = np.minimum(1.0, 2 * (1 - k / reach))  # flat, then falling
    spread = covariance[0] + 2 * float(window @ covariance[1 : reach + 1])
    slope = 2 * float(window @ (k * covariance[1 : reach + 1]))
    if spread <= 0:
        return most
    wanted = (2 * slope**2 / (4 / 3 * spread**2)) ** (1 / 3) * n ** (1 / 3)
    return min(max(least, math.ceil(wanted)), most)


def block_mean(values: np.ndarray, length: int | None = None, resamples: int = RESAMPLES, seed: int = 0) -> BlockMean:
    """Mean of dependent values f8[n], in order of time, with the interval of a moving-block bootstrap.

    The p-value is twice the share of resamples on the other side of 0, at least one over their number; 1 if all values
    are 0.

    Args:
        values: in order of time.
        length: of the blocks; None: `block_length`.
        resamples: how many.
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
    whole = total[length : length + n] - total[:n]  # sum of the block that starts at each
    rest = n - (blocks - 1) * length
    part = total[rest : rest + n] - total[:n]
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, blocks))
    means = (whole[drawn[:, 1:]].sum(axis=1) + part[drawn[:, 0]]) / n
    low, high = np.percentile(means, [2.5, 97.5])
    if not values.any():
        return BlockMean(0.0, 0.0, 0.0, 1.0, length)
    other = min((means <= 0).mean(), (means >= 0).mean())
    return BlockMean(
        float(values.mean()), float(low), float(high), float(min(1, max(2 * other, 1 / resamples))), length
    )
