"""Coordinate search: try each parameter a little up and down on the same cases, and keep what is clearly better.

Evolution strategies move all parameters at once and average the noise over many small steps; near the optimum their
steps are mostly noise. Here every comparison is paired, case by case, so a change of one parameter that helps by a
percent can be told from one that does not. Each parameter has a width of its own, which grows when a change was kept
and shrinks when none was (a success rule, as Rechenberg's for the steps of evolution strategies).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from llmsched_env.policies.weights import write_arrays
from llmsched_env.validation import check_number

_GROW, _SHRINK, _LARGEST_GAIN = 1.3, 0.6, 0.5  # the last: of one case, so that no case decides alone
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

    def save(self, path: Path, **more: np.ndarray | float) -> None:
        """Write the state and further arrays and numbers to an `.npz` file, at once or not at all."""
        write_arrays(path, **{name: getattr(self, name) for name in _SETTINGS}, **more)

    @classmethod
    def opened(cls, path: Path) -> tuple[Self, dict[str, np.ndarray]]:
        """What `save` wrote: the search, and what came with it."""
        with np.load(path) as file:
            content = dict(file)
        center, widths, *numbers = (content.pop(name) for name in _SETTINGS)
        return cls(center, widths, *(number.item() for number in numbers)), content
