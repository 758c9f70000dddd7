"""Coordinate search: try each parameter a little up and down on the same cases, and keep significant improvements.

Evolution strategies move all parameters at once and average the noise over many small steps; near the optimum their
steps are mostly noise. Here every comparison is paired, case by case, so that an improvement of one percent by a single
parameter is significant. Each parameter has its own step width. It grows when a change is kept and shrinks when none is
(a success rule, like Rechenberg's for the step size of evolution strategies).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from llmsched_env.validation import check_number

_GROW, _SHRINK = 1.3, 0.6  # of the width, after a change was kept or none was
_LARGEST_GAIN = 0.5  # counted of one case, so that no case decides alone
_SETTINGS = ("center", "widths", "clear", "seed", "sweeps")


@dataclass(slots=True, eq=False)
class CoordinateSearch:
    """What has been found so far, and how far to look from there.

    Args:
        center: f8[n], the parameters.
        widths: f8[n], by how much each is moved.
        clear: standard errors by which a change has to be better on average over the cases.
        seed: of the order in which parameters are tried.
        sweeps: done so far.

    Raises:
        ValueError: for a number that is not allowed.
    """

    center: np.ndarray
    widths: np.ndarray
    clear: float = 1.5
    seed: int = 0
    sweeps: int = 0

    def __post_init__(self) -> None:
        self.center, self.widths = np.array(self.center, float), np.array(self.widths, float)
        check_number("clear", self.clear, at_least=0)
        check_number("widths", float(self.widths.min()), above=0)

    def sweep(self, costs: Callable[[np.ndarray], np.ndarray]) -> tuple[int, float]:
        """Try every parameter once, in random order.

        Args:
            costs: f8[k, cases] of parameters f8[k, n], on the same cases whenever it is called; small is good.

        Returns:
            (how many changes were kept, by how much the mean cost fell on these cases).
        """
        [own] = first = costs(self.center[None])
        kept = 0
        for k in np.random.default_rng([self.seed, self.sweeps]).permutation(len(self.center)):
            both = np.stack([self.center, self.center])
            both[:, k] += self.widths[k] * np.array([1.0, -1.0])
            found = costs(both)
            gains = np.clip(own - found, -_LARGEST_GAIN, _LARGEST_GAIN)
            better = int(np.argmax(gains.mean(axis=1)))
            error = gains[better].std(ddof=1) / np.sqrt(gains.shape[1])
            if gains[better].mean() > self.clear * error:
                self.center, own = both[better], found[better]
                self.widths[k] *= _GROW
                kept += 1
            else:
                self.widths[k] *= _SHRINK
        self.sweeps += 1
        return kept, float((first[0] - own).mean())

    def state(self) -> dict[str, Any]:
        """Arrays and numbers from which `restored` goes on exactly."""
        return {name: getattr(self, name) for name in _SETTINGS}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """What `state` described."""
        center, widths, *numbers = (np.array(state[name]) for name in _SETTINGS)
        return cls(center, widths, *(number.item() for number in numbers))
