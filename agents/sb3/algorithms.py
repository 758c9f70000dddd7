"""PPO, MaskablePPO and DQN: models whose rates follow a training budget, and where they start."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from agents.config import SCRATCH, Training
from agents.sb3.engine_policy import EnginePolicy
from agents.sb3.environment import discount
from agents.sb3.group_baseline import GroupBaselineBuffer
from agents.sb3.schedules import DecayingEntropy, FollowsBudget
from agents.sb3.slot_policy import SlotPolicy
from agents.sb3.time_buffer import MaskableTimeDiscounted, TimeDiscounted
from agents.settings import DQNSettings, PPOSettings
from agents.training_budget import TrainingBudget


class BudgetedPPO(DecayingEntropy, PPO):
    """PPO whose learning rate and entropy bonus decay over a `TrainingBudget`."""


class BudgetedMaskablePPO(DecayingEntropy, MaskablePPO):
    """MaskablePPO whose learning rate and entropy bonus decay over a `TrainingBudget`."""


class BudgetedDQN(FollowsBudget, DQN):
    """DQN whose learning rate and exploration decay over a `TrainingBudget`."""


def make_model(config: Training, env: VecNormalize, budget: TrainingBudget, seed: int) -> BaseAlgorithm:
    """An untrained model on one torch thread: more are slower for networks this small."""
    torch.set_num_threads(1)
    torch.distributions.Distribution.set_default_validate_args(False)  # a tenth of the time of an update
    settings = config.settings
    if isinstance(settings, DQNSettings):
        return _make_dqn(config, settings, env, budget, seed)
    assert isinstance(settings, PPOSettings)
    masked = config.algo == "maskable_ppo"
    algorithm: Any = BudgetedMaskablePPO if masked else BudgetedPPO
    model: BudgetedPPO | BudgetedMaskablePPO = algorithm(
        SlotPolicy if masked else EnginePolicy if config.scores_engines else "MlpPolicy",
        env,
        learning_rate=_falling(settings.learning_rate),
        n_steps=settings.n_steps,
        batch_size=min(settings.batch_size, settings.n_steps * env.num_envs),
        n_epochs=settings.n_epochs,
        gae_lambda=settings.gae_lambda,
        ent_coef=settings.ent_coef,
        target_kl=settings.target_kl,
        seed=seed,
        device="cpu",
        **_of_policy(config, settings),
    )
    model.budget = budget
    model.start_ent_coef = settings.ent_coef
    return model


def _of_policy(config: Training, settings: PPOSettings) -> dict[str, Any]:
    if config.algo == "maskable_ppo":
        return _masked(config, settings)
    if config.scores_engines:
        return _of_engines(config, settings)
    layers, group = list(settings.net_arch), config.learning_aids.shared_traces
    return {
        "gamma": discount(config.decision_interval, settings.time_constant),
        "rollout_buffer_class": None if group == 1 else GroupBaselineBuffer,
        "rollout_buffer_kwargs": None if group == 1 else {"group": group},
        "policy_kwargs": {"net_arch": {"pi": layers, "vf": layers}, "log_std_init": settings.log_std_init},
    }


def _masked(config: Training, settings: PPOSettings) -> dict[str, Any]:
    shortest_first = 0.0 if config.start == SCRATCH else settings.start_logit
    return {
        "gamma": 1.0,  # the buffer discounts
        "rollout_buffer_class": MaskableTimeDiscounted,
        "rollout_buffer_kwargs": {"time_constant": settings.time_constant},
        "policy_kwargs": {"hidden": settings.net_arch[0], "shortest_first": shortest_first},
    }


def _of_engines(config: Training, settings: PPOSettings) -> dict[str, Any]:
    sharpness = 0.0 if config.start == SCRATCH else settings.start_logit
    return {
        "gamma": 1.0,  # the buffer discounts
        "rollout_buffer_class": TimeDiscounted,
        "rollout_buffer_kwargs": {
            "time_constant": settings.time_constant,
            "lambda_seconds": settings.lambda_seconds,
            "group": config.learning_aids.shared_traces,
        },
        "policy_kwargs": {"hidden": settings.net_arch[0], "sharpness": sharpness},
    }


def _make_dqn(
    config: Training, settings: DQNSettings, env: VecNormalize, budget: TrainingBudget, seed: int
) -> BudgetedDQN:
    model = BudgetedDQN(
        "MlpPolicy",
        env,
        learning_rate=_falling(settings.learning_rate),
        buffer_size=settings.buffer_size,
        learning_starts=settings.learning_starts,
        batch_size=settings.batch_size,
        train_freq=settings.train_freq,
        gradient_steps=settings.gradient_steps,
        target_update_interval=max(settings.target_update_interval, env.num_envs),
        exploration_fraction=settings.exploration_fraction,
        exploration_final_eps=settings.exploration_final_eps,
        gamma=discount(config.decision_interval, settings.time_constant),
        policy_kwargs={"net_arch": list(settings.net_arch), "activation_fn": torch.nn.Tanh},
        seed=seed,
        device="cpu",
    )
    model.budget = budget
    return model


def _falling(rate: float) -> LinearSchedule:
    """From a rate to a tenth of it."""
    return LinearSchedule(rate, rate / 10, 1.0)


def prefer(model: BaseAlgorithm, action: np.ndarray, config: Training) -> None:
    """Make an untrained model prefer an action for every observation, so that training starts from a baseline.

    Stable-Baselines3 starts with outputs near 0, so the biases of the last layer decide. Other actions keep a chance to
    be tried.
    """
    space, settings = model.action_space, config.settings
    with torch.no_grad():
        if isinstance(model, DQN):
            assert isinstance(settings, DQNSettings)
            for network in (model.q_net, model.q_net_target):
                last = network.q_net[-1]
                assert isinstance(last, torch.nn.Linear)
                last.weight.zero_()
                last.bias.zero_()
                last.bias[int(action)] = settings.start_value
            return
        assert isinstance(settings, PPOSettings)
        output: Any = model.policy.action_net
        biases = output.bias
        biases.zero_()
        if isinstance(space, Box):
            output.weight.zero_()  # the very action, whatever is observed
            biases.copy_(torch.as_tensor(action))
        else:
            assert isinstance(space, Discrete | MultiDiscrete)
            sizes = [space.n] if isinstance(space, Discrete) else space.nvec
            biases[np.cumsum([0, *sizes[:-1]]) + np.atleast_1d(action)] = settings.start_logit
