"""PPO on `llmsched/BatchQueue-v0`: the environment, the model, and where it starts."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import load_env_creator
from stable_baselines3 import PPO
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from agents.budget import Budget, OverBudget
from agents.group_baseline import GroupBaselineBuffer
from agents.sb3_vec_env import SB3VecEnv
from llmsched_env.envs.batch_queue import Knobs
from llmsched_env.validation import check_integer, check_number

EPISODE_NUMBERS = (
    "episode_arrived",
    "episode_finished",
    "episode_good",
    "episode_mean_in_system",
    "episode_preemptions",
    "episode_recomputed_tokens",
    "episode_prefix_hit_tokens",
)


@dataclass(frozen=True, slots=True)
class PPOSettings:
    """Hyper-parameters, under Stable-Baselines3's names where it has one; found on training and tuning seeds.

    Attributes:
        n_steps: steps of each environment between updates.
        batch_size: of a gradient step; large ones, since updates dominate the time.
        n_epochs: passes over the data of an update.
        learning_rate: at the start; decays linearly to a tenth.
        ent_coef: weight of the entropy bonus at the start; decays linearly to 0.
        time_constant: seconds over which the future is discounted by 1/e; long, since a busy minute leaves a backlog
            that lasts for minutes.
        gae_lambda: of the advantage estimate.
        target_kl: an update stops early beyond it.
        net_arch: hidden layers of the policy, and of the separate value network.
        start_logit: by how much the logits of the starting action exceed the others.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    n_steps: int = 128
    batch_size: int = 2048
    n_epochs: int = 4
    learning_rate: float = 1e-3
    ent_coef: float = 0.003
    time_constant: float = 60.0
    gae_lambda: float = 0.98
    target_kl: float = 0.02
    net_arch: tuple[int, ...] = (64, 64)
    start_logit: float = 2.0

    def __post_init__(self) -> None:
        for name in ("n_steps", "n_epochs"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("batch_size", self.batch_size, at_least=2)  # advantages are scaled by their spread in a batch
        for name in ("learning_rate", "target_kl"):
            check_number(name, getattr(self, name), above=0)
        for name in ("ent_coef", "start_logit"):
            check_number(name, getattr(self, name), at_least=0)
        check_number("time_constant", self.time_constant, above=0, unit="s", finite=False)
        check_number("gae_lambda", self.gae_lambda, at_least=0, at_most=1)
        for units in self.net_arch:
            check_integer("net_arch", units, at_least=1)


class DecayingEntropy(OverBudget):
    """The entropy bonus of an algorithm decays over its budget as well."""

    start_ent_coef: float

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        self.ent_coef = self.start_ent_coef * self._current_progress_remaining


class BudgetedPPO(DecayingEntropy, PPO):
    """PPO whose learning rate and entropy bonus decay over a `Budget` rather than over a number of steps."""


def make_training_env(
    num_envs: int,
    interval: float | None,
    time_constant: float,
    env_id: str = "llmsched/BatchQueue-v0",
    episode_numbers: tuple[str, ...] = EPISODE_NUMBERS,
    **kwargs: Any,
) -> VecNormalize:
    """The vector environment as a learner sees it: episode statistics, rewards scaled by the spread of their returns.

    Args:
        num_envs: engines stepped together.
        interval: seconds between decisions; None: before every batch, or whenever else the environment asks.
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
    monitored = VecMonitor(SB3VecEnv(env), info_keywords=episode_numbers)
    return VecNormalize(monitored, norm_obs=False, clip_reward=math.inf, gamma=discount(interval, time_constant))


def _has_interval(env_id: str) -> bool:
    entry = gym.spec(env_id).vector_entry_point
    environment = load_env_creator(entry) if isinstance(entry, str) else entry
    return "decision_interval" in inspect.signature(environment).parameters


def discount(interval: float | None, time_constant: float) -> float:
    """Discount of a step of `interval` seconds: constant in time, so that it does not depend on the tick.

    None, for steps of different durations, is not discounted: for episodes that end by themselves.
    """
    return 1.0 if interval is None else math.exp(-interval / time_constant)


def make_model(
    env: VecNormalize, interval: float | None, settings: PPOSettings, budget: Budget, seed: int, group: int = 1
) -> BudgetedPPO:
    """An untrained model. One torch thread: more are slower for networks this small.

    Above 1, `group` says how many environments in a row serve the same requests: advantages are relative to theirs.
    """
    torch.set_num_threads(1)
    torch.distributions.Distribution.set_default_validate_args(False)  # a tenth of the time of an update
    layers = list(settings.net_arch)
    model = BudgetedPPO(
        "MlpPolicy",
        env,
        learning_rate=LinearSchedule(settings.learning_rate, settings.learning_rate / 10, 1.0),
        n_steps=settings.n_steps,
        batch_size=min(settings.batch_size, settings.n_steps * env.num_envs),
        n_epochs=settings.n_epochs,
        gamma=discount(interval, settings.time_constant),
        gae_lambda=settings.gae_lambda,
        ent_coef=settings.ent_coef,
        target_kl=settings.target_kl,
        rollout_buffer_class=None if group == 1 else GroupBaselineBuffer,
        rollout_buffer_kwargs=None if group == 1 else {"group": group},
        policy_kwargs={"net_arch": {"pi": layers, "vf": layers}},
        seed=seed,
        device="cpu",
    )
    model.budget = budget
    model.start_ent_coef = settings.ent_coef
    return model


def warm_start(model: PPO, knobs: Knobs, action: np.ndarray, settings: PPOSettings) -> None:
    """Make the untrained policy prefer `action` everywhere: training starts from a baseline, not from random knobs.

    Stable-Baselines3 starts with logits near 0, so the biases of the last layer decide: the most probable action is
    `action` for every observation, and the others keep a chance to be tried.
    """
    first_logits = np.cumsum([0, *knobs.sizes[:-1]])
    with torch.no_grad():
        model.policy.action_net.bias.zero_()
        model.policy.action_net.bias[first_logits + np.asarray(action)] = settings.start_logit


def reward_statistics(env: VecNormalize) -> dict[str, float]:
    """What the reward scaling has learned: mean, variance and count of the discounted returns."""
    statistics = env.ret_rms
    return {"mean": float(statistics.mean), "var": float(statistics.var), "count": float(statistics.count)}


def restore_reward_statistics(env: VecNormalize, statistics: Mapping[str, float]) -> None:
    """Set what `reward_statistics` returned."""
    for name, value in statistics.items():
        setattr(env.ret_rms, name, np.float64(value))
