"""Environments as learners of Stable-Baselines3 see them: monitored episodes, and rewards of a fixed scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize

from agents.config import Training
from agents.settings import DQNSettings, PPOSettings
from llmsched_env.sb3.vec_env import SB3VecEnv

EPISODE_NUMBERS = (
    "episode_arrived",
    "episode_finished",
    "episode_good",
    "episode_mean_in_system",
    "episode_preemptions",
    "episode_recomputed_tokens",
    "episode_prefix_hit_tokens",
)
NETWORK_NUMBERS = ("episode_arrived", "episode_finished", "episode_mean_tasks", "episode_mean_calls")


def normalized(env: VectorEnv[Any, Any, Any], config: Training) -> VecNormalize:
    """A vector environment with episode statistics, its rewards scaled by the spread of their discounted returns."""
    settings = config.settings
    assert isinstance(settings, PPOSettings | DQNSettings)
    numbers = NETWORK_NUMBERS if config.env in ("Cluster", "AgentNetwork") else EPISODE_NUMBERS
    monitored = VecMonitor(SB3VecEnv(env), info_keywords=numbers)
    if config.scores_engines:
        return TimeNormalize(monitored, settings.time_constant)
    gamma = 0.99 if config.algo == "maskable_ppo" else discount(config.decision_interval, settings.time_constant)
    return VecNormalize(monitored, norm_obs=False, clip_reward=math.inf, gamma=gamma)


class TimeNormalize(VecNormalize):
    """Scales rewards by the spread of returns that are discounted in time.

    Args:
        env: over a `SB3VecEnv`, which says how long steps took.
        time_constant: s over which the future is discounted by 1/e.
    """

    def __init__(self, env: VecEnv, time_constant: float) -> None:
        super().__init__(env, norm_obs=False, clip_reward=math.inf)
        self._time_constant = time_constant

    def _update_reward(self, reward: np.ndarray) -> None:
        adapter = self.unwrapped
        assert isinstance(adapter, SB3VecEnv)
        self.returns = self.returns * np.exp(-adapter.seconds / self._time_constant) + reward
        self.ret_rms.update(self.returns)


def discount(interval: float | None, time_constant: float) -> float:
    """Discount of a step of `interval` seconds: constant in time, so that it does not depend on the interval.

    Steps of different durations (None) are not discounted; their episodes must end by themselves.
    """
    return 1.0 if interval is None else math.exp(-interval / time_constant)


def reward_statistics(env: VecNormalize) -> dict[str, float]:
    """What the reward scaling has learned: mean, variance and count of the discounted returns."""
    statistics = env.ret_rms
    return {"mean": float(statistics.mean), "var": float(statistics.var), "count": float(statistics.count)}


def restore_reward_statistics(env: VecNormalize, statistics: Mapping[str, float]) -> None:
    """Set what `reward_statistics` returned."""
    for name, value in statistics.items():
        setattr(env.ret_rms, name, np.float64(value))
