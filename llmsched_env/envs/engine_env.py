"""What the environments of one engine share: spaces, rows and pictures, around a runner."""

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

from llmsched_env.envs.episodes import Episodes, Load
from llmsched_env.envs.observation import observation_space
from llmsched_env.envs.render import as_image, as_text
from llmsched_env.envs.runner import EpisodeRunner
from llmsched_env.envs.runner_env import RunnerEnv, RunnerVectorEnv
from llmsched_env.simulator.records import Result
from llmsched_env.validation import check_integer


class _OfEngines:
    """What both have: the episodes, and a way to change those to come."""

    _runner: EpisodeRunner

    @property
    def episodes(self) -> Episodes:
        """What the next episodes are drawn from."""
        return self._runner.episodes

    def set_episodes(self, *, load: Load, horizon: float | None) -> None:
        """Give the episodes that begin from now on this load and length, for a curriculum.

        Args:
            load: as the argument of the environment.
            horizon: as the argument of the environment, s.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        self._runner.set_episodes(load, horizon)


class EngineEnv(_OfEngines, RunnerEnv):
    """A single environment over a runner of one engine."""

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 10}

    def __init__(self, runner: EpisodeRunner, render_mode: str | None) -> None:
        self._runner = runner
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


class EngineVectorEnv(_OfEngines, RunnerVectorEnv):
    """A vector environment over a runner of engines.

    Args:
        runner: of all of them.
        shared_traces: how many environments in a row serve the same requests.

    Raises:
        ValueError: if `shared_traces` does not divide their number.
    """

    def __init__(self, runner: EpisodeRunner, shared_traces: int = 1) -> None:
        check_integer("shared_traces", shared_traces, at_least=1)
        if len(runner.obs) % shared_traces:
            raise ValueError(f"shared_traces must divide num_envs={len(runner.obs)}, got {shared_traces}")
        self._runner = runner
        self._group = shared_traces
        self.num_envs = len(runner.obs)
        self.single_action_space = runner.actions.space
        self.single_observation_space = observation_space(runner.obs.shape[1])
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
