"""DQN: its hyper-parameters, the model, and where it starts. Its actions are a few fixed settings, the arms."""

from dataclasses import dataclass

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from agents.sb3.schedules import FollowsBudget
from agents.training_budget import TrainingBudget
from llmsched_env.validation import check_integer, check_number


@dataclass(frozen=True, slots=True)
class DQNSettings:
    """Hyper-parameters, under Stable-Baselines3's names where it has one.

    Attributes:
        arms: how many settings to choose from, the best static ones.
        buffer_size: transitions that the replay buffer keeps.
        learning_starts: steps over all environments before the first update.
        batch_size: of a gradient step.
        train_freq: steps of each environment between updates.
        gradient_steps: of an update.
        learning_rate: at the start; decays linearly to a tenth.
        target_update_interval: steps over all environments between copies to the target network.
        exploration_fraction: share of the budget over which the share of random actions decays.
        exploration_final_eps: the share of random actions after that.
        time_constant: seconds over which the future is discounted by 1/e.
        net_arch: hidden layers of the Q-network.
        start_value: by how much the initial value of the starting arm exceeds the others.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    arms: int = 8
    buffer_size: int = 200_000
    learning_starts: int = 4096
    batch_size: int = 512
    train_freq: int = 4
    gradient_steps: int = 4
    learning_rate: float = 5e-4
    target_update_interval: int = 4096
    exploration_fraction: float = 0.5
    exploration_final_eps: float = 0.02
    time_constant: float = 60.0
    net_arch: tuple[int, ...] = (64, 64)
    start_value: float = 0.1

    def __post_init__(self) -> None:
        check_integer("learning_starts", self.learning_starts, at_least=0)
        whole = ("arms", "buffer_size", "batch_size", "train_freq", "gradient_steps", "target_update_interval")
        for name in whole:
            check_integer(name, getattr(self, name), at_least=1)
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("exploration_fraction", self.exploration_fraction, above=0, at_most=1)
        check_number("exploration_final_eps", self.exploration_final_eps, at_least=0, at_most=1)
        check_number("time_constant", self.time_constant, above=0, unit="s", finite=False)
        check_number("start_value", self.start_value, at_least=0)
        for units in self.net_arch:
            check_integer("net_arch", units, at_least=1)


class BudgetedDQN(FollowsBudget, DQN):
    """DQN whose learning rate and exploration decay over a `TrainingBudget`."""


def make_dqn(env: VecEnv, gamma: float, settings: DQNSettings, budget: TrainingBudget, seed: int) -> BudgetedDQN:
    """An untrained model on one torch thread.

    Args:
        env: with a `Discrete` action.
        gamma: discount of a step.
        settings: hyper-parameters.
        budget: over which rates decay.
        seed: of everything random.
    """
    torch.set_num_threads(1)
    model = BudgetedDQN(
        "MlpPolicy",
        env,
        learning_rate=LinearSchedule(settings.learning_rate, settings.learning_rate / 10, 1.0),
        buffer_size=settings.buffer_size,
        learning_starts=settings.learning_starts,
        batch_size=settings.batch_size,
        train_freq=settings.train_freq,
        gradient_steps=settings.gradient_steps,
        target_update_interval=max(settings.target_update_interval, env.num_envs),
        exploration_fraction=settings.exploration_fraction,
        exploration_final_eps=settings.exploration_final_eps,
        gamma=gamma,
        policy_kwargs={"net_arch": list(settings.net_arch), "activation_fn": torch.nn.Tanh},
        seed=seed,
        device="cpu",
    )
    model.budget = budget
    return model


def prefer_arm(model: DQN, arm: int, settings: DQNSettings) -> None:
    """Make the untrained network value `arm` above the others, so that its greedy policy is that arm everywhere."""
    with torch.no_grad():
        for network in (model.q_net, model.q_net_target):
            last = network.q_net[-1]
            assert isinstance(last, torch.nn.Linear)
            last.weight.zero_()
            last.bias.zero_()
            last.bias[arm] = settings.start_value
