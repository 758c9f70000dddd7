"""Episodes that grow: training begins with low loads and short episodes.

Early policies then don't spend their steps on queues that a good policy never sees (the growing horizon of Decima, H.
Mao et al., SIGCOMM 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from agents.config import Training

_STAGES = 50


@dataclass(frozen=True, slots=True)
class Curriculum:
    """The episodes at each point of a training.

    Attributes:
        load: range of loads at the end; its low end is there from the start.
        horizon: length of episodes at the end, s.
        interval: between decisions, s: no episode is shorter.
        share: of the budget over which the episodes grow, in 50 equal stages; 0: they begin at full size.
        start: share of the range and of the length that they begin with.
    """

    load: tuple[float, float]
    horizon: float
    interval: float
    share: float
    start: float

    def at(self, spent: float) -> tuple[tuple[float, float], float]:
        """Range of loads and horizon (s) once this share of the budget is spent."""
        grown = 1.0 if spent >= self.share else int(_STAGES * spent / self.share) / _STAGES
        size = self.start + (1.0 - self.start) * grown
        low, high = self.load
        if size == 1.0:
            return self.load, self.horizon
        return (low, low + size * (high - low)), max(self.interval, size * self.horizon)

    @classmethod
    def of(cls, config: Training) -> Self:
        """The episodes of a training."""
        load, aids = config.episode_load, config.learning_aids
        if load is None:
            raise ValueError("train_load must be a range for a curriculum, got none")
        return cls(load, config.horizon, config.interval, aids.curriculum, aids.curriculum_start)
