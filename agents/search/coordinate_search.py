"""Coordinate search: try each parameter a little up and down on the same cases, and keep significant improvements.

Evolution strategies move all parameters at once and average the noise over many small steps; near the optimum their
steps are mostly noise. Here every comparison is paired, case by case, so that an improvement of one percent by a single
parameter is significant. Each parameter has its own step width. It grows when a change is kept and shrinks when none is
(a success rule, like Rechenberg's for the step size of evolution strategies).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from llmsched_env.validation import check_number

_GROW, _SHRINK = 1.3, 0.6  # of the width, after a change was kept or none was
_LARGEST_GAIN = 0.5  # counted of one case, so that no case decides alone
_SETTINGS = ("center", "widths", "clear", "seed", "tried", "kept", "first_cost")

Costs = Callable[[np.ndarray], np.ndarray]
"""f8[k, cases] of parameters f8[k, n], on the same cases whenever it is called in a sweep; small is good."""


@dataclass(slots=True, eq=False)
class CoordinateSearch:
    """What has been found so far, and how far to look from there.

    Args:
        center: f8[n], the parameters.
        widths: f8[n], by how much each is moved.
        clear: standard errors by which a change has to be better on average over the cases.
        seed: of the order in which parameters are tried.
        tried: parameters tried so far; a sweep tries each of them once, in random order.
        kept: changes kept in this sweep.
        first_cost: mean cost at the start of this sweep.

    Raises:
        ValueError: for a number that is not allowed.
    """

    center: np.ndarray
    widths: np.ndarray
    clear: float = 1.5
    seed: int = 0
    tried: int = 0
    kept: int = 0
    first_cost: float = 0.0
    _own: np.ndarray | None = field(default=None, init=False)  # costs of the center, if known

    def __post_init__(self) -> None:
        self.center, self.widths = np.array(self.center, float), np.array(self.widths, float)
        check_number("clear", self.clear, at_least=0)
        check_number("widths", float(self.widths.min()), above=0)

    @property
    def sweep(self) -> int:
        """The sweep that is under way, or to come."""
        return self.tried // len(self.center)

    @property
    def at_start(self) -> bool:
        """Whether no parameter has been tried in this sweep."""
        return self.tried % len(self.center) == 0

    def step(self, costs: Costs) -> float:
        """Try the next parameter; returns by how much the mean cost has fallen since the start of the sweep."""
        if self._own is None or self.at_start:
            self._own = costs(self.center[None])[0]
        if self.at_start:
            self.kept, self.first_cost = 0, float(self._own.mean())
        order = np.random.default_rng([self.seed, self.sweep]).permutation(len(self.center))
        k = order[self.tried % len(self.center)]
        both = np.stack([self.center, self.center])
        both[:, k] += self.widths[k] * np.array([1.0, -1.0])
        found = costs(both)
        gains = np.clip(self._own - found, -_LARGEST_GAIN, _LARGEST_GAIN)
        better = int(np.argmax(gains.mean(axis=1)))
        error = gains[better].std(ddof=1) / np.sqrt(gains.shape[1])
        if gains[better].mean() > self.clear * error:
            self.center, self._own = both[better], found[better]
            self.widths[k] *= _GROW
            self.kept += 1
        else:
            self.widths[k] *= _SHRINK
        self.tried += 1
        return self.first_cost - float(self._own.mean())

    def state(self) -> dict[str, Any]:
        """Arrays and numbers from which `restored` goes on exactly."""
        return {name: getattr(self, name) for name in _SETTINGS}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """What `state` described."""
        center, widths, *numbers = (np.array(state[name]) for name in _SETTINGS)
        return cls(center, widths, *(number.item() for number in numbers))
