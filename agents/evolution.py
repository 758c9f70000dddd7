"""Evolution strategies: follow the gradient of a smoothed objective that need not be differentiable.

T. Salimans et al., "Evolution strategies as a scalable alternative to reinforcement learning", arXiv 1703.03864, with
mirrored samples, fitness shaped by ranks, and Adam.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from llmsched_env.policies.weights import write_arrays
from llmsched_env.validation import check_integer, check_number

_FIRST_DECAY, _SECOND_DECAY, _TINY = 0.9, 0.99, 1e-8  # of Adam's moments; the second is short, as steps are few
_SETTINGS = ("center", "noise", "learning_rate", "pairs", "decay", "seed", "generation")


@dataclass(slots=True, eq=False)
class EvolutionStrategy:
    """A search distribution: normal around `center` with standard deviation `noise` in every direction.

    `ask` for candidates, evaluate all on the same cases, and `tell` how good they were, generation after generation.

    Args:
        center: f8[n], the parameters; what has been found so far.
        noise: standard deviation of the candidates.
        learning_rate: of Adam: about how far a parameter moves in a generation.
        pairs: mirrored pairs of candidates a generation.
        decay: by which the parameters shrink each generation, 1 for not at all.
        seed: of all randomness.

    Raises:
        ValueError: for a number that is not allowed.
    """

    center: np.ndarray
    noise: float = 0.05
    learning_rate: float = 0.02
    pairs: int = 12
    decay: float = 1.0
    seed: int = 0
    generation: int = 0
    _first: np.ndarray = field(init=False)
    _second: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        check_number("noise", self.noise, above=0)
        check_number("learning_rate", self.learning_rate, above=0)
        check_integer("pairs", self.pairs, at_least=1)
        check_number("decay", self.decay, above=0, at_most=1)
        self.center = np.array(self.center, dtype=np.float64)
        self._first, self._second = np.zeros_like(self.center), np.zeros_like(self.center)

    def ask(self) -> np.ndarray:
        """f8[2 * pairs, n]: candidates, each followed by its mirror image; the same until `tell` is called."""
        steps = self.noise * self._directions()
        return self.center + np.stack([steps, -steps], axis=1).reshape(-1, len(self.center))

    def tell(self, fitness: np.ndarray) -> None:
        """Move the center towards the better candidates.

        Args:
            fitness: f8[2 * pairs], the larger the better; only its order matters.

        Raises:
            ValueError: if there is not one finite number for each candidate.
        """
        fitness = np.asarray(fitness, dtype=np.float64)
        if fitness.shape != (2 * self.pairs,) or not np.isfinite(fitness).all():
            raise ValueError(f"fitness must be {2 * self.pairs} finite numbers, got {fitness!r}")
        ranks = np.empty(len(fitness))
        ranks[np.argsort(fitness, kind="stable")] = np.linspace(-0.5, 0.5, len(fitness))
        better = ranks[0::2] - ranks[1::2]
        gradient = better @ self._directions() / (self.pairs * self.noise)
        self.generation += 1
        self._first += (1 - _FIRST_DECAY) * (gradient - self._first)
        self._second += (1 - _SECOND_DECAY) * (gradient**2 - self._second)
        mean = self._first / (1 - _FIRST_DECAY**self.generation)
        spread = np.sqrt(self._second / (1 - _SECOND_DECAY**self.generation))
        self.center = self.decay * (self.center + self.learning_rate * mean / (spread + _TINY))

    def state(self) -> dict[str, Any]:
        """Arrays and numbers from which `restored` goes on exactly."""
        return {name: getattr(self, name) for name in _SETTINGS} | {"first": self._first, "second": self._second}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Self:
        """What `state` described."""
        kept = {name: np.array(value) for name, value in state.items()}
        first, second = kept.pop("first"), kept.pop("second")
        whole = ("pairs", "seed", "generation")
        numbers = {n: int(v) if n in whole else v if n == "center" else float(v) for n, v in kept.items()}
        strategy = cls(**numbers)
        strategy._first, strategy._second = first, second
        return strategy

    def save(self, path: Path, **more: Any) -> None:
        """Write the state and further arrays and numbers to an `.npz` file, at once or not at all."""
        write_arrays(path, **self.state(), **more)

    @classmethod
    def opened(cls, path: Path) -> tuple[Self, dict[str, np.ndarray]]:
        """What `save` wrote: the strategy, and what came with it."""
        with np.load(path) as file:
            content = dict(file)
        state = {name: content.pop(name) for name in (*_SETTINGS, "first", "second")}
        return cls.restored(state), content

    def _directions(self) -> np.ndarray:
        rng = np.random.default_rng([self.seed, self.generation])
        return rng.standard_normal((self.pairs, len(self.center)))
