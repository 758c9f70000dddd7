"""Evolution strategies: follow the gradient of a smoothed objective that need not be differentiable.

T. Salimans et al., "Evolution strategies as a scalable alternative to reinforcement learning", arXiv 1703.03864, with
mirrored samples, rank-based fitness shaping, and Adam.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from agents.settings import EvolutionSettings

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
        EvolutionSettings(0, self.noise, self.learning_rate, self.pairs, self.decay)  # refuses what is not allowed
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
        noise, learning_rate, decay = (float(state[name]) for name in ("noise", "learning_rate", "decay"))
        pairs, seed, generation = (int(state[name]) for name in ("pairs", "seed", "generation"))
        strategy = cls(state["center"], noise, learning_rate, pairs, decay, seed, generation)
        strategy._first, strategy._second = np.array(state["first"]), np.array(state["second"])
        return strategy

    def _directions(self) -> np.ndarray:
        rng = np.random.default_rng([self.seed, self.generation])
        return rng.standard_normal((self.pairs, len(self.center)))
