"""Markov-modulated Poisson arrivals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llmsched_env.validation import check_number
from llmsched_env.workloads.arrivals import Poisson


@dataclass(frozen=True)
class MMPP:
    """Markov-modulated Poisson process: a Poisson process whose rate follows a hidden Markov chain.

    Give the chain either by `mean_dwell` or by `transition`.

    Attributes:
        rates_relative: rate of each state relative to the others; their long-run mean is scaled to the rate asked for.
        mean_dwell: mean seconds in each state, exponential; the next state is uniform over the others.
        transition: row-stochastic matrix of the chain per step of `step` seconds.
        step: seconds between the steps of `transition`.

    Raises:
        ValueError: fewer than two states, no or both of the two forms, a matrix that is not square, stochastic and
            irreducible, a dwell time or step that is not positive, or rates that are negative or all zero.
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
        if (self.mean_dwell is None) == (self.transition is None):
            raise ValueError("MMPP needs exactly one of mean_dwell and transition")
        if self.transition is None:
            dwell = np.array([check_number("MMPP mean_dwell", x, above=0, unit="s") for x in self.mean_dwell])
            if len(dwell) != len(relative):
                raise ValueError(f"MMPP mean_dwell needs one value per state, {len(relative)}, got {len(dwell)}")
            jump = (1 - np.eye(len(dwell))) / (len(dwell) - 1)
        else:
            matrix = _checked_transition(self.transition, len(relative))
            leave = 1 - np.diag(matrix)
            dwell = check_number("MMPP step", self.step, above=0, unit="s") / leave
            jump = (matrix - np.diag(np.diag(matrix))) / leave[:, None]
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
        """Return sorted arrival times f8[n] in [0, horizon) seconds, the chain starting in its stationary law."""
        points, path = rng.spawn(2)
        ends, states = self._path(path, horizon)
        starts = np.concatenate([[0.0], ends[:-1]])
        cumulated = np.concatenate([[0.0], np.cumsum((ends - starts) * self._relative[states] * rate)])
        arrivals = Poisson().points(points, cumulated[-1])
        piece = np.searchsorted(cumulated, arrivals, side="right") - 1
        return starts[piece] + (arrivals - cumulated[piece]) / (self._relative[states[piece]] * rate)

    def _path(self, rng: np.random.Generator, horizon: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the times at which the states end (the last one at `horizon`) and the states themselves."""
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
    return matrix / matrix.sum(axis=1, keepdims=True)


def _stationary(stochastic: np.ndarray) -> np.ndarray:
    """Left eigenvector of eigenvalue 1 of an irreducible stochastic matrix, summing to 1."""
    size = len(stochastic)
    equations = np.vstack([stochastic.T - np.eye(size), np.ones(size)])
    return np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)[0]
