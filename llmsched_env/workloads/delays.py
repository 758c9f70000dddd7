"""Laws of delays between calls (`llmsched_env.delays`). A plain number of seconds works too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from llmsched_env.validation import check_number
from llmsched_env.workloads.dist import complete, normal_quantile

__all__ = ["Constant", "Delay", "Exponential", "LogNormal", "table"]


@runtime_checkable
class Delay(Protocol):
    """A law of seconds >= 0, given by its inverse distribution function."""

    def quantile(self, u: np.ndarray) -> np.ndarray:
        """Map probabilities f8[n] in [0, 1) to seconds f8[n]."""


@dataclass(frozen=True, slots=True)
class Constant:
    """Always `seconds`."""

    seconds: float

    def __post_init__(self) -> None:
        check_number("Constant seconds", self.seconds, at_least=0, unit="s")

    def quantile(self, u: np.ndarray) -> np.ndarray:
        return np.full(np.shape(u), float(self.seconds))


@dataclass(frozen=True, slots=True)
class Exponential:
    """Memoryless, with the given mean in seconds."""

    mean: float

    def __post_init__(self) -> None:
        check_number("Exponential mean", self.mean, above=0, unit="s")

    def quantile(self, u: np.ndarray) -> np.ndarray:
        return np.asarray(-self.mean * np.log1p(-np.asarray(u)))


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Log-normal seconds, given by the median in seconds and `sigma`, the standard deviation of the logarithm."""

    median: float
    sigma: float

    def __post_init__(self) -> None:
        check_number("LogNormal median", self.median, above=0, unit="s")
        check_number("LogNormal sigma", self.sigma, above=0, at_most=5, unit="ln s")

    def quantile(self, u: np.ndarray) -> np.ndarray:
        return np.asarray(self.median * np.exp(self.sigma * normal_quantile(np.asarray(u))))


@dataclass(frozen=True, slots=True)
class SecondsTable:
    """A law of seconds given by a table: log-linear between positive knots, linear from a knot at 0.

    Attributes:
        levels: percentages from 0 to 100, increasing.
        seconds: the time at each level, >= 0, not decreasing.
    """

    levels: Sequence[float]
    seconds: Sequence[float]

    @classmethod
    def of(cls, levels: Sequence[float], seconds: Sequence[float]) -> SecondsTable:
        """The law of a table, completed at its ends; see `dist.complete`."""
        return cls(*(tuple(column) for column in complete(levels, seconds)))

    def quantile(self, u: np.ndarray) -> np.ndarray:
        """Map probabilities f8[n] in [0, 1) to seconds f8[n]."""
        levels, seconds = np.array(self.levels) / 100, np.array(self.seconds, float)
        k = np.clip(np.searchsorted(levels, u, side="right") - 1, 0, len(levels) - 2)
        share = (u - levels[k]) / (levels[k + 1] - levels[k])
        low, high = seconds[k], seconds[k + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            curved = low * (high / low) ** share
        return np.asarray(np.where(low > 0, curved, low + (high - low) * share))


def table(levels: Sequence[float], seconds: Sequence[float]) -> SecondsTable:
    """The law of a table of quantiles: log-linear between positive knots, linear from a knot at 0.

    Args:
        levels: percentages, increasing; missing levels 0 and 100 are added.
        seconds: the time at each level, >= 0, not decreasing.

    Raises:
        ValueError: they differ in length or are not as described.
    """
    levels = tuple(check_number("levels", x, at_least=0, at_most=100, unit="percent") for x in levels)
    seconds = tuple(check_number("seconds", x, at_least=0, unit="s") for x in seconds)
    if len(levels) != len(seconds) or len(levels) < 2:
        raise ValueError(f"a table needs as many levels as seconds, at least two, got {len(levels)} and {len(seconds)}")
    if np.any(np.diff(levels) <= 0) or np.any(np.diff(seconds) < 0):
        raise ValueError(f"levels must increase and seconds must not decrease, got {levels} and {seconds}")
    if 0 in seconds[:2] and levels[0] > 0 or 0 in seconds[-2:] and levels[-1] < 100:
        raise ValueError(f"levels must reach from 0 to 100 if the seconds at an end are 0, got {levels}, {seconds}")
    return SecondsTable.of(levels, seconds)


def as_delay(name: str, seconds: Delay | float) -> Delay:
    """Return `seconds` as a law.

    Raises:
        ValueError: it is neither a law nor a finite number >= 0.
    """
    if isinstance(seconds, Delay):
        return seconds
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise ValueError(f"{name} must be a number >= 0 (s) or a law of llmsched_env.delays, got {seconds!r}")
    return Constant(float(seconds))
