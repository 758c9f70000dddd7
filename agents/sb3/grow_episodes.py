"""The callback that grows the episodes of a training."""

from stable_baselines3.common.callbacks import BaseCallback

from agents.curriculum import Curriculum
from agents.training_budget import TrainingBudget


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
