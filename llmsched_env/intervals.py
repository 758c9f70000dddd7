"""95 % confidence intervals of means over independent replications."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_CONFIDENCE = 0.95


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and half width of its 95 % t-interval; the half width of fewer than two values is nan."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return (float(values[0]) if len(values) else math.nan), math.nan
    from scipy.special import stdtrit

    quantile = stdtrit(len(values) - 1, (1 + _CONFIDENCE) / 2)
    return float(values.mean()), float(quantile * values.std(ddof=1) / math.sqrt(len(values)))


def paired_interval(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and half width of the 95 % t-interval of a - b, where a[i] and b[i] come from the same workload.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"paired_interval: {len(a)} and {len(b)} values; pairs need equally many")
    return mean_interval(np.subtract(a, b))
