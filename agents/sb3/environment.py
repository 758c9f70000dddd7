"""Environments as learners of Stable-Baselines3 see them: monitored episodes, and rewards of a fixed scale."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

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


def make_training_env(
    num_envs: int,
    interval: float | None,
    time_constant: float,
    env_id: str = "llmsched/BatchQueue-v0",
    episode_numbers: tuple[str, ...] = EPISODE_NUMBERS,
    **kwargs: Any,
) -> VecNormalize:
    """The vector environment, monitored, its rewards scaled by the spread of their returns.

    Args:
        num_envs: engines stepped together.
        interval: seconds between decisions; None: before every batch, or whenever the environment asks.
        time_constant: of the discount, s.
        env_id: which environment.
        episode_numbers: what its episodes report at their end.
        kwargs: further arguments of its vector environment.

    Raises:
        ValueError: for an interval where the environment has none.
    """
    if _has_interval(env_id):
        kwargs["decision_interval"] = interval
    elif interval is not None:
        raise ValueError(f"interval must be None for {env_id}, which says itself when to decide, got {interval!r}")
    env = gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs)
    return normalized(env, discount(interval, time_constant), episode_numbers)


def normalized(env: VectorEnv, gamma: float, episode_numbers: tuple[str, ...] = EPISODE_NUMBERS) -> VecNormalize:
    """A vector environment with episode statistics, its rewards scaled by the spread of returns with this discount."""
    monitored = VecMonitor(SB3VecEnv(env), info_keywords=episode_numbers)
    return VecNormalize(monitored, norm_obs=False, clip_reward=math.inf, gamma=gamma)


def _has_interval(env_id: str) -> bool:
    entry = gym.spec(env_id).vector_entry_point
    environment = load_env_creator(entry) if isinstance(entry, str) else entry
    assert environment is not None, f"{env_id} has no vector environment"
    return "decision_interval" in inspect.signature(environment).parameters


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
