"""What the environments of one engine share: spaces, rows and pictures, around a runner."""

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

from llmsched_env.envs.observation import observation_space
from llmsched_env.envs.render import as_image, as_text
from llmsched_env.envs.runner import EpisodeRunner
from llmsched_env.envs.runner_env import RunnerEnv, RunnerVectorEnv
from llmsched_env.simulator.records import Result


class EngineEnv(RunnerEnv):
    """A single environment over a runner of one engine."""

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 10}
    _runner: EpisodeRunner

    def __init__(self, runner: EpisodeRunner, render_mode: str | None) -> None:
        self._runner = runner
        self.episodes = runner.episodes
        self.render_mode = render_mode
        self.action_space = runner.actions.space
        self.observation_space = observation_space(runner.obs.shape[1])

    def result(self) -> Result:
        """The rows of the episode so far; needs `record`.

        Raises:
            ValueError: if the environment records nothing, or before the first reset.
        """
        simulator, table = self._runner.simulator, self._runner.tables[0]
        if simulator.record == "off" or table is None:
            raise ValueError(
                f"result() needs record='requests', 'batches' or 'entries' and a reset, got {simulator.record!r}"
            )
        return simulator.result(0, table, self.episodes.workload.name)

    def render(self) -> str | np.ndarray | None:
        if self.render_mode is None:
            gym.logger.warn("render() needs a render_mode, chosen when the environment is made")
            return None
        view = self._runner.simulator.view(0)
        return as_text(view) if self.render_mode == "ansi" else as_image(view)


class EngineVectorEnv(RunnerVectorEnv):
    """A vector environment over a runner of engines."""

    _runner: EpisodeRunner

    def __init__(self, runner: EpisodeRunner) -> None:
        self._runner = runner
        self.episodes = runner.episodes
        self.num_envs = len(runner.obs)
        self.single_action_space = runner.actions.space
        self.single_observation_space = observation_space(runner.obs.shape[1])
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
