"""Arrivals whose rate or times follow the clock: the hour of the day, windows of a trace, ticks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llmsched_env.validation import check_number
from llmsched_env.workloads.arrivals import ArrivalProcess, Poisson, Renewal


@dataclass(frozen=True)
class Diurnal:
    """A rate that repeats every `period`, constant within equal parts of it.

    Attributes:
        multipliers: rate in each part relative to the others; their mean over the period is scaled to the rate asked
            for.
        base: the process whose points are carried to clock time by the cumulated rate.
        period: seconds.
        start: seconds into the period at which time 0 is.
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
        # Where the rate is 0 the cumulated rate is flat and has no inverse; points fall there with probability 0.
        rising = np.append(True, np.diff(steps) > 0)
        rising[:-1] |= rising[1:]
        times = np.interp(cumulated, steps[rising], edges[rising]) - self.start
        return times[(times >= 0) & (times < horizon)]


@dataclass(frozen=True)
class Windows:
    """Windows of equal width, each with a rate and a renewal process of its own; afterwards they repeat.

    Attributes:
        width: seconds of a window.
        rates: rate of each window relative to the others; their mean is scaled to the rate asked for.
        processes: the process in each window.
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
        factor = rate / np.mean(self.rates)
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
    """The arrivals of `base`, each moved to the tick before it, as in traces with coarse time stamps.

    Attributes:
        tick: seconds between ticks.
        base: the process.
    """

    tick: float
    base: ArrivalProcess = Poisson()

    def __post_init__(self) -> None:
        check_number("Ticks tick", self.tick, above=0, unit="s")

    def times(self, rng: np.random.Generator, rate: float, horizon: float) -> np.ndarray:
        """Return sorted arrival times f8[n] in [0, horizon) seconds."""
        return np.floor(self.base.times(rng, rate, horizon) / self.tick) * self.tick
