"""PPO: its hyper-parameters, the model, and where it starts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from agents.sb3.environment import discount
from agents.sb3.group_baseline import GroupBaselineBuffer
from agents.sb3.schedules import DecayingEntropy
from agents.training_budget import TrainingBudget
from llmsched_env.envs.batch_queue import Knobs
from llmsched_env.validation import check_integer, check_number


@dataclass(frozen=True, slots=True)
class PPOSettings:
    """Hyper-parameters, under Stable-Baselines3's names where it has one; found on training and tuning seeds.

    Attributes:
        n_steps: steps of each environment between updates.
        batch_size: of a gradient step; large ones, since updates dominate the time.
        n_epochs: passes over the data of an update.
        learning_rate: at the start; decays linearly to a tenth.
        ent_coef: weight of the entropy bonus at the start; decays linearly to 0.
        time_constant: seconds over which the future is discounted by 1/e. It is long, since the backlog of a busy
            minute lasts for minutes.
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


class BudgetedPPO(DecayingEntropy, PPO):
    """PPO whose learning rate and entropy bonus decay over a `TrainingBudget`."""


def make_model(
    env: VecNormalize, interval: float | None, settings: PPOSettings, budget: TrainingBudget, seed: int, group: int = 1
) -> BudgetedPPO:
    """An untrained model, on one torch thread: more are slower for networks this small.

    With `group` above 1, that many environments in a row serve the same requests, and advantages are relative to their
    mean.
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


def warm_start(model: PPO, knobs: Knobs, action: Sequence[int], settings: PPOSettings) -> None:
    """Make the untrained policy prefer `action` for every observation, so that training starts from a baseline.

    Stable-Baselines3 starts with logits near 0, so the biases of the last layer decide. Other actions keep a chance to
    be tried.
    """
    first_logits = np.cumsum([0, *knobs.sizes[:-1]])
    last = model.policy.action_net
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias.zero_()
        last.bias[first_logits + np.asarray(action)] = settings.start_logit
