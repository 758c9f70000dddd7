"""Episodes that grow: training begins with low loads and short episodes.

Early policies then don't spend their steps on queues that a good policy never sees (the growing horizon of Decima, H.
Mao et al., SIGCOMM 2019).
"""

from dataclasses import dataclass

from stable_baselines3.common.callbacks import BaseCallback

from agents.training_budget import TrainingBudget

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


class GrowEpisodes(BaseCallback):
    """Grows the episodes of the training environment, and logs their size under `curriculum/`."""

    def __init__(self, curriculum: Curriculum, budget: TrainingBudget) -> None:
        super().__init__()
        self._curriculum, self._budget = curriculum, budget
        self._now: tuple[tuple[float, float], float] | None = None

    def _on_rollout_start(self) -> None:
        present = self._curriculum.at(self._budget.spent(self.num_timesteps))
        if present != self._now:
            load, horizon = self._now = present
            self.training_env.env_method("set_episodes", load=load, horizon=horizon)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assert self._now is not None
        (_, highest), horizon = self._now
        self.logger.record("curriculum/highest_load", highest)
        self.logger.record("curriculum/horizon", horizon)
