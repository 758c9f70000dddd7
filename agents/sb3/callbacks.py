"""What acts during rollouts and after updates: learning aids, and what is logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecEnv

from agents.config import Training
from agents.curriculum import Curriculum
from agents.sb3.environment import EPISODE_NUMBERS, NETWORK_NUMBERS
from agents.sb3.grow_episodes import GrowEpisodes
from agents.sb3.pull_to_start import PullToStart, actor_weights
from agents.training_budget import TrainingBudget
from llmsched_env.sb3.vec_env import SB3VecEnv


def aids_callbacks(config: Training, model: BaseAlgorithm, budget: TrainingBudget, first: Path) -> list[BaseCallback]:
    """What the learning aids of a training do.

    Args:
        config: of the training.
        model: as training begins or goes on.
        budget: of the training.
        first: the checkpoint of step 0, to which a resumed training is pulled back.
    """
    acting: list[BaseCallback] = []
    aids = config.learning_aids
    if aids.curriculum > 0:
        acting.append(GrowEpisodes(Curriculum.of(config), budget))
    if aids.anchor > 0:
        started = model.num_timesteps > 0
        state: Any = load_from_zip_file(first)[1]["policy"] if started else model.policy.state_dict()
        acting.append(PullToStart(aids.anchor, actor_weights(state), budget))
    return acting


class NoteSeconds(BaseCallback):
    """Tells a `TimeDiscounted` how long each step took.

    Args:
        env: the adapter below all wrappers, whose `seconds` say so.
    """

    def __init__(self, env: VecEnv) -> None:
        super().__init__()
        assert isinstance(env, SB3VecEnv)
        self._env = env

    def _on_step(self) -> bool:
        buffer = self.model.rollout_buffer  # type: ignore[attr-defined]  # of on-policy algorithms
        buffer.seconds[buffer.pos] = self._env.seconds
        return True


class EpisodeNumbers(BaseCallback):
    """Logs the means of what episodes report at their end, and the speed since the first update."""

    _started: tuple[float, int] | None = None

    def _on_training_start(self) -> None:  # of each update, since `learn` is called for each
        if self._started is None:
            self._started = self.model.start_time, self.model._num_timesteps_at_start
        self.model.start_time, self.model._num_timesteps_at_start = self._started

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        for name in dict.fromkeys(EPISODE_NUMBERS + NETWORK_NUMBERS):
            values = [episode[name] for episode in self.model.ep_info_buffer or () if name in episode]
            if values:
                self.logger.record(f"rollout/{name}", float(np.mean(values)))
