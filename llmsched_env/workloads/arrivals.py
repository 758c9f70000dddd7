"""Arrival processes, each scaled to a given mean rate.

The points of a unit-rate process are drawn first and carried to clock time by the cumulated rate, so that arrivals of
one seed at two rates are one pattern, stretched.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, Self

import numpy as np

from llmsched_env.validation import check_number

MOST_ARRIVALS = 1e8
"""Of one sample, on average; a hundred million requests take tens of gigabytes."""


def check_arrivals(expected: float) -> None:
    """Refuse to draw more arrivals than memory holds.

    Raises:
        ValueError: if more than `MOST_ARRIVALS` are expected.
    """
    if not expected <= MOST_ARRIVALS:
        raise ValueError(
            f"rate must be so low that at most {MOST_ARRIVALS:g} requests arrive within the horizon, got {expected:g}; "
            "lower the rate (or load), or shorten the horizon"
        )


class ArrivalProcess(Protocol):
    """Draws arrival times at a given mean rate."""

    def times(self, rng: np.random.Generator, rate: float, horizon: float) -> np.ndarray:
        """Return sorted arrival times f8[n] in [0, horizon) seconds at `rate` requests/s on average."""


class Renewal(ABC):
    """Arrivals with independent, identically distributed gaps; the process is stationary from time 0 on."""

    @abstractmethod
    def gaps(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw f8[n] gaps of mean 1."""

    @abstractmethod
    def first_gap(self, rng: np.random.Generator) -> float:
        """Draw the time from an arbitrary moment to the next point at unit rate."""

    def points(self, rng: np.random.Generator, upto: float) -> np.ndarray:
        """Draw the points f8[n] of the process at unit rate on [0, upto)."""
        check_arrivals(upto)
        points = np.array([self.first_gap(rng)])
        while points[-1] < upto:
            more = self.gaps(rng, _generous(upto - points[-1]))
            points = np.concatenate([points, points[-1] + np.cumsum(more)])
        return points[: np.searchsorted(points, upto, side="left")]

    def times(self, rng: np.random.Generator, rate: float, horizon: float) -> np.ndarray:
        """Return sorted arrival times f8[n] in [0, horizon) seconds."""
        return np.asarray(self.points(rng, rate * horizon) / rate)


@dataclass(frozen=True, slots=True)
class Poisson(Renewal):
    """Arrivals with independent exponential gaps."""

    def gaps(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.standard_exponential(n)

    def first_gap(self, rng: np.random.Generator) -> float:
        return rng.standard_exponential()


@dataclass(frozen=True)
class Gamma(Renewal):
    """Gamma-distributed gaps with coefficient of variation `cv`: 1 is Poisson, larger is burstier."""

    cv: float

    def __post_init__(self) -> None:
        check_number("Gamma cv", self.cv, at_least=0.01, at_most=100)

    @cached_property
    def shape(self) -> float:
        """Shape of the gamma distribution, 1/cv^2."""
        return self.cv**-2

    def gaps(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.standard_gamma(self.shape, n) / self.shape

    def first_gap(self, rng: np.random.Generator) -> float:
        # A uniform part of the gap around the moment, which is drawn with a probability proportional to its length.
        return rng.random() * rng.standard_gamma(self.shape + 1) / self.shape


@dataclass(frozen=True)
class Weibull(Renewal):
    """Weibull-distributed gaps with shape `shape`: 1 is Poisson, smaller is burstier."""

    shape: float

    def __post_init__(self) -> None:
        check_number("Weibull shape", self.shape, at_least=0.1, at_most=100)

    @classmethod
    def of_cv(cls, cv: float) -> Self:
        """The process whose gaps have the coefficient of variation `cv`, from 0.02 to 100."""
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
        # As for Gamma; the shape-th power of a gap drawn in proportion to its length is gamma distributed.
        return float(rng.random() * self._scale * rng.standard_gamma(1 + 1 / self.shape) ** (1 / self.shape))


def _generous(mean: float) -> int:
    return int(mean + 4 * mean**0.5) + 8


@dataclass(frozen=True)
class MMPP:
    """Markov-modulated Poisson process: a Poisson process whose rate follows a hidden Markov chain.

    The chain is given either by `mean_dwell` or by `transition`.

    Attributes:
        rates_relative: relative rate in each state; their long-run mean is scaled to the given rate.
        mean_dwell: mean seconds in each state, exponential; the next state is uniform over the others.
        transition: row-stochastic matrix of the chain per step of `step` seconds.
        step: seconds between the steps of `transition`.

    Raises:
        ValueError: there are fewer than two states, none or both of the two forms, a matrix that is not square,
            stochastic and irreducible, a dwell time or step that is not positive, or rates that are negative or all
            zero.
    """

    rates_relative: Sequence[float]
    mean_dwell: Sequence[float] | None = None
    transition: Sequence[Sequence[float]] | None = None
    step: float = 1.0
    _relative: np.ndarray = field(init=False, repr=False, compare=False)
    _occupancy: np.ndarray = field(init=False, repr=False, compare=False)
    _jump: np.ndarray = field(init=False, repr=False, compare=False)
    _dwell: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        relative = np.array([check_number("MMPP rates_relative", x, at_least=0) for x in self.rates_relative])
        if len(relative) < 2 or not relative.any():
            raise ValueError(f"MMPP rates_relative needs two states or more, one rate > 0, got {self.rates_relative}")
        if self.mean_dwell is not None and self.transition is None:
            dwell = np.array([check_number("MMPP mean_dwell", x, above=0, unit="s") for x in self.mean_dwell])
            if len(dwell) != len(relative):
                raise ValueError(f"MMPP mean_dwell needs one value per state, {len(relative)}, got {len(dwell)}")
            jump = (1 - np.eye(len(dwell))) / (len(dwell) - 1)
        elif self.transition is not None and self.mean_dwell is None:
            matrix = _checked_transition(self.transition, len(relative))
            leave = 1 - np.diag(matrix)
            dwell = check_number("MMPP step", self.step, above=0, unit="s") / leave
            jump = (matrix - np.diag(np.diag(matrix))) / leave[:, None]
        else:
            raise ValueError("MMPP needs exactly one of mean_dwell and transition")
        occupancy = _stationary(jump) * dwell
        occupancy /= occupancy.sum()
        for name, value in (
            ("_relative", relative / (occupancy @ relative)),
            ("_occupancy", occupancy),
            ("_jump", jump),
            ("_dwell", dwell),
        ):
            object.__setattr__(self, name, value)

    def times(self, rng: np.random.Generator, rate: float, horizon: float) -> np.ndarray:
        """Return sorted arrival times f8[n] in [0, horizon) seconds; the chain starts in its stationary law."""
        points, path = rng.spawn(2)
        ends, states = self._path(path, horizon)
        starts = np.concatenate([[0.0], ends[:-1]])
        cumulated = np.concatenate([[0.0], np.cumsum((ends - starts) * self._relative[states] * rate)])
        arrivals = Poisson().points(points, cumulated[-1])
        piece = np.searchsorted(cumulated, arrivals, side="right") - 1
        return np.asarray(starts[piece] + (arrivals - cumulated[piece]) / (self._relative[states[piece]] * rate))

    def _path(self, rng: np.random.Generator, horizon: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the times at which the states end, the last one at `horizon`, and the states."""
        state = int(rng.choice(len(self._dwell), p=self._occupancy))
        ends, states, clock = [], [], 0.0
        following = np.cumsum(self._jump, axis=1)
        while clock < horizon:
            if self.transition is None:
                clock += rng.exponential(self._dwell[state])
            else:
                clock += self.step * rng.geometric(self.step / self._dwell[state])
            ends.append(min(clock, horizon))
            states.append(state)
            state = min(int(np.searchsorted(following[state], rng.random(), side="right")), len(self._dwell) - 1)
        return np.array(ends), np.array(states)


def _checked_transition(transition: Sequence[Sequence[float]], states: int) -> np.ndarray:
    matrix = np.array(transition, dtype=float)
    if matrix.shape != (states, states):
        raise ValueError(f"MMPP transition must be a {states} x {states} matrix, got shape {matrix.shape}")
    if not (matrix >= 0).all() or not np.allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-6):
        raise ValueError(f"MMPP transition must hold probabilities >= 0 with rows that sum to 1, got {matrix.tolist()}")
    if not np.all(np.linalg.matrix_power(matrix + np.eye(states), states) > 0):
        raise ValueError(f"MMPP transition must lead from every state to every other, got {matrix.tolist()}")
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))


def _stationary(stochastic: np.ndarray) -> np.ndarray:
    """Left eigenvector of eigenvalue 1 of an irreducible stochastic matrix, summing to 1."""
    size = len(stochastic)
    equations = np.vstack([stochastic.T - np.eye(size), np.ones(size)])
    return np.asarray(np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)[0])


@dataclass(frozen=True)
class Diurnal:
    """A rate that repeats every `period`, constant within equal parts of it.

    Attributes:
        multipliers: relative rate in each part of the period; their mean is scaled to the given rate.
        base: process whose points are carried to clock time by the cumulated rate.
        period: seconds.
        start: seconds into the period at time 0.
    """

    multipliers: Sequence[float]
    base: Renewal = Poisson()
    period: float = 86400.0
    start: float = 0.0
    _relative: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        relative = np.array([check_number("Diurnal multipliers", x, at_least=0) for x in self.multipliers])
        if not relative.any():
            raise ValueError(f"Diurnal multipliers needs one or more, one of them > 0, got {self.multipliers}")
        check_number("Diurnal period", self.period, above=0, unit="s")
        check_number("Diurnal start", self.start, at_least=0, at_most=self.period, unit="s")
        object.__setattr__(self, "_relative", relative / relative.mean())

    def times(self, rng: np.random.Generator, rate: float, horizon: float) -> np.ndarray:
        """Return sorted arrival times f8[n] in [0, horizon) seconds."""
        parts = len(self._relative)
        edges = np.arange(np.ceil((self.start + horizon) / self.period * parts) + 1) * (self.period / parts)
        steps = np.append(0.0, np.cumsum(self._relative[np.arange(len(edges) - 1) % parts])) * self.period / parts
        begin, end = np.interp([self.start, self.start + horizon], edges, steps)
        cumulated = begin + self.base.points(rng, rate * (end - begin)) / rate
        # Where the rate is 0, the cumulated rate is flat and has no inverse; points fall there with probability 0.
        rising = np.append(True, np.diff(steps) > 0)
        rising[:-1] |= rising[1:]
        times = np.interp(cumulated, steps[rising], edges[rising]) - self.start
        return np.asarray(times[(times >= 0) & (times < horizon)])


@dataclass(frozen=True)
class Windows:
    """Windows of equal width, each with its own rate and renewal process; they repeat after the last one.

    Attributes:
        width: seconds per window.
        rates: relative rate in each window; their mean is scaled to the given rate.
        processes: process in each window.
    """

    width: float
    rates: Sequence[float]
    processes: Sequence[Renewal]

    def __post_init__(self) -> None:
        check_number("Windows width", self.width, above=0, unit="s")
        if len(self.rates) != len(self.processes) or not any(self.rates):
            counts = f"{len(self.rates)} and {len(self.processes)}"
            raise ValueError(f"Windows needs as many rates as processes and one rate > 0, got {counts}")
        for rate in self.rates:
            check_number("Windows rates", rate, at_least=0)

    def times(self, rng: np.random.Generator, rate: float, horizon: float) -> np.ndarray:
        """Return sorted arrival times f8[n] in [0, horizon) seconds."""
        factor = float(rate / np.mean(self.rates))
        windows = int(np.ceil(horizon / self.width))
        pieces = [
            k * self.width + self.processes[k % len(self.rates)].times(rng, own * factor, self.width)
            for k in range(windows)
            if (own := self.rates[k % len(self.rates)]) > 0
        ]
        times = np.concatenate([np.empty(0), *pieces])
        return times[: np.searchsorted(times, horizon, side="left")]


@dataclass(frozen=True)
class Ticks:
    """The arrivals of `base`, rounded down to ticks, as in traces with coarse time stamps.

    Attributes:
        tick: seconds between ticks.
        base: the underlying process.
    """

    tick: float
    base: ArrivalProcess = Poisson()

    def __post_init__(self) -> None:
        check_number("Ticks tick", self.tick, above=0, unit="s")

    def times(self, rng: np.random.Generator, rate: float, horizon: float) -> np.ndarray:
        """Return sorted arrival times f8[n] in [0, horizon) seconds."""
        return np.floor(self.base.times(rng, rate, horizon) / self.tick) * self.tick
