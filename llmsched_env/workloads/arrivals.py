"""Arrival processes: points of a unit-rate renewal process carried to clock time by the cumulated rate.

Because the points come first and the rate second, arrivals of one seed at two rates are one pattern, stretched.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np

from llmsched_env.validation import check_number


class ArrivalProcess(Protocol):
    """Draws arrival times at a given mean rate."""

    def times(self, rng: np.random.Generator, rate: float, horizon: float) -> np.ndarray:
        """Return sorted arrival times f8[n] in [0, horizon) seconds at `rate` requests/s on average."""


class Renewal(ABC):
    """Arrivals with independent, equally distributed gaps; the process is stationary from time 0 on."""

    @abstractmethod
    def gaps(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw f8[n] gaps of mean 1."""

    @abstractmethod
    def first_gap(self, rng: np.random.Generator) -> float:
        """Draw the time from an arbitrary moment to the next point, at unit rate."""

    def points(self, rng: np.random.Generator, upto: float) -> np.ndarray:
        """Draw the points f8[n] of the process at unit rate on [0, upto)."""
        points = np.array([self.first_gap(rng)])
        while points[-1] < upto:
            more = self.gaps(rng, _generous(upto - points[-1]))
            points = np.concatenate([points, points[-1] + np.cumsum(more)])
        return points[: np.searchsorted(points, upto, side="left")]

    def times(self, rng: np.random.Generator, rate: float, horizon: float) -> np.ndarray:
        """Return sorted arrival times f8[n] in [0, horizon) seconds."""
        return self.points(rng, rate * horizon) / rate


@dataclass(frozen=True, slots=True)
class Poisson(Renewal):
    """Arrivals with independent exponential gaps."""

    def gaps(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.standard_exponential(n)

    def first_gap(self, rng: np.random.Generator) -> float:
        return rng.standard_exponential()


@dataclass(frozen=True)
class Gamma(Renewal):
    """Gamma-distributed gaps with coefficient of variation `cv`: 1 is Poisson, more is burstier."""

    cv: float

    def __post_init__(self) -> None:
        check_number("Gamma cv", self.cv, at_least=0.01, at_most=100)

    @cached_property
    def shape(self) -> float:
        """Shape of the gamma law, 1/cv^2."""
        return self.cv**-2

    def gaps(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.standard_gamma(self.shape, n) / self.shape

    def first_gap(self, rng: np.random.Generator) -> float:
        # A uniform share of the gap that holds the moment; gaps are met in proportion to their length.
        return rng.random() * rng.standard_gamma(self.shape + 1) / self.shape


@dataclass(frozen=True)
class Weibull(Renewal):
    """Weibull-distributed gaps of the given shape: 1 is Poisson, less is burstier."""

    shape: float

    def __post_init__(self) -> None:
        check_number("Weibull shape", self.shape, at_least=0.1, at_most=100)

    @classmethod
    def of_cv(cls, cv: float) -> Self:
        """The process whose gaps have this coefficient of variation, 0.02 to 100."""
        from scipy.optimize import brentq

        check_number("Weibull cv", cv, at_least=0.02, at_most=100)
        return cls(brentq(lambda shape: cls(shape).cv - cv, 0.1, 100.0))

    @cached_property
    def cv(self) -> float:
        """Coefficient of variation of the gaps."""
        return math.sqrt(math.gamma(1 + 2 / self.shape) / math.gamma(1 + 1 / self.shape) ** 2 - 1)

    @cached_property
    def _scale(self) -> float:
        return 1 / math.gamma(1 + 1 / self.shape)

    def gaps(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return self._scale * rng.weibull(self.shape, n)

    def first_gap(self, rng: np.random.Generator) -> float:
        # As for Gamma; the shape-th power of a gap met in proportion to its length has a gamma law.
        return rng.random() * self._scale * rng.standard_gamma(1 + 1 / self.shape) ** (1 / self.shape)


def _generous(mean: float) -> int:
    return int(mean + 4 * mean**0.5) + 8
