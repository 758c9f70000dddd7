"""Distributions of token counts (`llmsched_env.dist`). Wherever one is expected, a plain int works too."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from statistics import NormalDist

import numpy as np

from llmsched_env.validation import check_integer, check_number

__all__ = [
    "Constant",
    "Distribution",
    "Empirical",
    "Geometric",
    "Histogram",
    "LogNormal",
    "Poisson",
    "Quantiles",
    "Uniform",
]

_NORMAL = NormalDist()
_LARGEST_BELOW_ONE = math.nextafter(1.0, 0.0)


class Distribution(ABC):
    """A law of token counts >= 1, given by its inverse distribution function."""

    @abstractmethod
    def quantile(self, u: np.ndarray) -> np.ndarray:
        """Map probabilities f8[n] in [0, 1) to token counts i8[n]."""

    @property
    @abstractmethod
    def mean(self) -> float:
        """Mean token count of the law as sampled, rounding included."""

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw i8[n] token counts by inversion."""
        return self.quantile(rng.random(n))


@dataclass(frozen=True, slots=True)
class Constant(Distribution):
    """Always `tokens`."""

    tokens: int

    def __post_init__(self) -> None:
        check_integer("Constant tokens", self.tokens, at_least=1)

    def quantile(self, u: np.ndarray) -> np.ndarray:
        return np.full(np.shape(u), self.tokens, np.int64)

    @property
    def mean(self) -> float:
        return float(self.tokens)


@dataclass(frozen=True, slots=True)
class Uniform(Distribution):
    """Every integer from `low` to `high`, both included, with the same probability."""

    low: int
    high: int

    def __post_init__(self) -> None:
        check_integer("Uniform low", self.low, at_least=1)
        check_integer("Uniform high", self.high, at_least=self.low)

    def quantile(self, u: np.ndarray) -> np.ndarray:
        return np.asarray(self.low + np.floor(np.asarray(u) * (self.high - self.low + 1)).astype(np.int64))

    @property
    def mean(self) -> float:
        return (self.low + self.high) / 2


@dataclass(frozen=True, slots=True)
class Geometric(Distribution):
    """Number of trials up to the first success: the memoryless law on 1, 2, ... with the given mean."""

    mean: float

    def __post_init__(self) -> None:
        check_number("Geometric mean", self.mean, at_least=1, at_most=1e6, unit="tokens")

    def quantile(self, u: np.ndarray) -> np.ndarray:
        if self.mean == 1:
            return np.ones(np.shape(u), np.int64)
        trials = np.ceil(np.log1p(-np.asarray(u)) / math.log1p(-1 / self.mean))
        return np.asarray(np.maximum(trials, 1).astype(np.int64))


@dataclass(frozen=True)
class Poisson(Distribution):
    """Poisson counts of parameter `rate`, of which 0 counts as 1."""

    rate: float

    def __post_init__(self) -> None:
        check_number("Poisson rate", self.rate, above=0, at_most=1e6, unit="tokens")

    @cached_property
    def _levels(self) -> np.ndarray:
        """P(N <= k) for k = 0, 1, ..., until it is 1 to rounding."""
        from scipy.stats import poisson

        return np.asarray(poisson.cdf(np.arange(int(self.rate + 10 * math.sqrt(self.rate)) + 30), self.rate))

    def quantile(self, u: np.ndarray) -> np.ndarray:
        return np.maximum(np.searchsorted(self._levels, u, side="right"), 1)

    @property
    def mean(self) -> float:
        return self.rate + math.exp(-self.rate)


@dataclass(frozen=True, slots=True)
class LogNormal(Distribution):
    """Token counts whose logarithm is normal with mean `mu` and standard deviation `sigma`, rounded, at least 1."""

    mu: float
    sigma: float

    def __post_init__(self) -> None:
        check_number("LogNormal mu", self.mu, at_least=0, at_most=14, unit="ln tokens")
        check_number("LogNormal sigma", self.sigma, above=0, at_most=3, unit="ln tokens")

    def quantile(self, u: np.ndarray) -> np.ndarray:
        tokens = np.exp(self.mu + self.sigma * normal_quantile(np.asarray(u)))
        return np.maximum(np.rint(tokens), 1).astype(np.int64)

    @property
    def mean(self) -> float:
        # E[N] = sum over k >= 0 of P(N > k), with P(N > 0) = 1 and P(N > k) = P(X > k + 1/2). From k = 1024 on the sum
        # is the integral of P(X > x) up to the midpoint rule's error, which has a closed form.
        cut = 1024
        head = 1 + sum(self._above(k + 0.5) for k in range(1, cut))
        heavier = _NORMAL.cdf((self.mu + self.sigma**2 - math.log(cut)) / self.sigma)
        return head + math.exp(self.mu + self.sigma**2 / 2) * heavier - cut * self._above(cut)

    def _above(self, tokens: float) -> float:
        return _NORMAL.cdf((self.mu - math.log(tokens)) / self.sigma)


@dataclass(frozen=True)
class Quantiles(Distribution):
    """A law given by a table of quantiles: log-linear between knots, rounded to whole tokens.

    Attributes:
        levels: percentages from 0 to 100, increasing.
        tokens: the token count at each level, not decreasing; equal neighbours make an atom.
    """

    levels: Sequence[float]
    tokens: Sequence[int]
    _knots: tuple[np.ndarray, np.ndarray] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(check_number("Quantiles levels", x) for x in self.levels))
        object.__setattr__(self, "tokens", tuple(check_integer("Quantiles tokens", x, at_least=1) for x in self.tokens))
        if len(self.levels) != len(self.tokens) or len(self.levels) < 2:
            counts = f"{len(self.levels)} levels and {len(self.tokens)} tokens"
            raise ValueError(f"Quantiles needs as many levels as tokens and at least two of each, got {counts}")
        if self.levels[0] != 0 or self.levels[-1] != 100 or np.any(np.diff(self.levels) <= 0):
            raise ValueError(f"Quantiles levels must increase from 0 to 100 (percent), got {self.levels}")
        if np.any(np.diff(self.tokens) < 0):
            raise ValueError(f"Quantiles tokens must not decrease, got {self.tokens}")
        object.__setattr__(self, "_knots", (np.array(self.levels) / 100, np.log(self.tokens)))

    def quantile(self, u: np.ndarray) -> np.ndarray:
        return np.asarray(np.rint(np.exp(np.interp(u, *self._knots))).astype(np.int64))

    @property
    def mean(self) -> float:
        # The sum of P(N > k); the half-integers k + 1/2 are never knots, so atoms need no special case.
        levels, log_tokens = self._knots
        halves = np.arange(self.tokens[0], self.tokens[-1]) + 0.5
        return float(self.tokens[0] + np.sum(1 - np.interp(np.log(halves), log_tokens, levels)))


@dataclass(frozen=True, eq=False)
class Empirical(Distribution):
    """Draws with replacement from observed token counts."""

    tokens: Iterable[int] = field(repr=False)

    def __post_init__(self) -> None:
        observed = sorted(check_integer("Empirical tokens", x, at_least=1) for x in self.tokens)
        if not observed:
            raise ValueError("Empirical tokens must hold at least one token count, got none")
        object.__setattr__(self, "tokens", np.array(observed, np.int64))

    def quantile(self, u: np.ndarray) -> np.ndarray:
        tokens = np.asarray(self.tokens)
        return np.asarray(tokens[(np.asarray(u) * len(tokens)).astype(np.int64)])

    @property
    def mean(self) -> float:
        return float(np.asarray(self.tokens).mean())


@dataclass(frozen=True, eq=False)
class Histogram(Distribution):
    """Draws from token counts with given weights; counts may repeat.

    Attributes:
        tokens: token counts.
        weights: weight of each count, >= 0; they need not sum to 1.
    """

    tokens: Iterable[int] = field(repr=False)
    weights: Iterable[float] = field(repr=False)

    def __post_init__(self) -> None:
        tokens = np.array(
            [check_integer("Histogram tokens", x, at_least=1, at_most=10**9) for x in self.tokens], np.int64
        )
        weights = np.array([check_number("Histogram weights", x, at_least=0) for x in self.weights])
        if len(tokens) != len(weights) or not weights.any():
            counts = f"{len(tokens)} and {len(weights)}"
            raise ValueError(f"Histogram needs as many tokens as weights and one weight > 0, got {counts}")
        order = np.argsort(tokens, kind="stable")
        object.__setattr__(self, "tokens", tokens[order])
        object.__setattr__(self, "weights", weights[order] / weights.sum())

    def quantile(self, u: np.ndarray) -> np.ndarray:
        levels = np.cumsum(np.asarray(self.weights))[:-1]
        return np.asarray(self.tokens)[np.searchsorted(levels, np.asarray(u), side="right")]

    @property
    def mean(self) -> float:
        return float(np.asarray(self.tokens) @ np.asarray(self.weights))


def complete(levels: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Add levels 0 and 100 (percent) to a table of positive values if they are missing.

    The table is extrapolated with the slope at its end, log-linear as between knots.
    """
    levels, values = list(levels), list(values)
    if levels[0] > 0:
        slope = np.log(values[1] / values[0]) / (levels[1] - levels[0])
        values.insert(0, float(values[0] * np.exp(-slope * levels[0])))
        levels.insert(0, 0)
    if levels[-1] < 100:
        slope = np.log(values[-1] / values[-2]) / (levels[-1] - levels[-2])
        values.append(float(values[-1] * np.exp(slope * (100 - levels[-1]))))
        levels.append(100)
    return levels, values


def token_table(levels: Sequence[float], tokens: Sequence[float]) -> Quantiles:
    """The law of a table of integers >= 1, such as tokens, completed at its ends."""
    levels, values = complete(levels, tokens)
    return Quantiles(levels, [max(1, round(value)) for value in values])


def as_distribution(name: str, tokens: Distribution | int) -> Distribution:
    """Return `tokens` as a distribution.

    Raises:
        ValueError: it is neither a distribution nor an integer >= 1.
    """
    if isinstance(tokens, Distribution):
        return tokens
    if not isinstance(tokens, Integral):
        raise ValueError(f"{name} must be an integer >= 1 or a distribution of llmsched_env.dist, got {tokens!r}")
    return Constant(check_integer(name, tokens, at_least=1, unit="tokens"))


def normal_cdf(z: np.ndarray) -> np.ndarray:
    """Standard normal distribution function of f8[n], below 1 everywhere."""
    scaled = (np.asarray(z) / math.sqrt(2)).tolist()
    return np.minimum(0.5 + 0.5 * np.fromiter(map(math.erf, scaled), float, len(scaled)), _LARGEST_BELOW_ONE)


def normal_quantile(u: np.ndarray) -> np.ndarray:
    """Inverse of the standard normal distribution function for f8[n]; 0 counts as the smallest float above it."""
    inside = np.maximum(u, math.ulp(0.0)).tolist()
    return np.fromiter(map(_NORMAL.inv_cdf, inside), float, len(inside))
