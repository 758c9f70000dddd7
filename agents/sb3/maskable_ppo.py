"""MaskablePPO with one network for all slots: its hyper-parameters and the model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from agents.sb3.schedules import DecayingEntropy
from agents.sb3.slot_policy import SlotPolicy, TimeDiscountedBuffer
from agents.training_budget import TrainingBudget
from llmsched_env.validation import check_integer, check_number


@dataclass(frozen=True, slots=True)
class MaskablePPOSettings:
    """Hyper-parameters, under Stable-Baselines3's names where it has one.

    Attributes:
        n_steps: steps of each environment between updates.
        batch_size: of a gradient step.
        n_epochs: passes over the data of an update.
        learning_rate: at the start; decays linearly to a tenth.
        ent_coef: weight of the entropy bonus at the start; decays linearly to 0.
        time_constant: s over which the future is discounted by 1/e; inf: not at all.
        gae_lambda: of the advantage estimate.
        target_kl: an update stops early beyond it.
        hidden: units of a layer.
        shortest_first: preference for short prompts at the start, in logits; 0: from scratch.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    n_steps: int = 256
    batch_size: int = 2048
    n_epochs: int = 4
    learning_rate: float = 1e-3
    ent_coef: float = 0.003
    time_constant: float = 60.0
    gae_lambda: float = 0.98
    target_kl: float = 0.03
    hidden: int = 32
    shortest_first: float = 20.0

    def __post_init__(self) -> None:
        for name in ("n_steps", "n_epochs", "hidden"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("batch_size", self.batch_size, at_least=2)  # advantages are scaled by their spread in a batch
        for name in ("learning_rate", "target_kl"):
            check_number(name, getattr(self, name), above=0)
        for name in ("ent_coef", "shortest_first"):
            check_number(name, getattr(self, name), at_least=0)
        check_number("gae_lambda", self.gae_lambda, at_least=0, at_most=1)
        check_number("time_constant", self.time_constant, above=0, unit="s", finite=False)


class BudgetedMaskablePPO(DecayingEntropy, MaskablePPO):
    """MaskablePPO whose learning rate and entropy bonus decay over a `TrainingBudget`."""


def make_maskable_ppo(
    env: VecNormalize, settings: MaskablePPOSettings, budget: TrainingBudget, seed: int
) -> BudgetedMaskablePPO:
    """An untrained model on one torch thread; needs the callback `NoteSeconds` to discount by time."""
    torch.set_num_threads(1)
    torch.distributions.Distribution.set_default_validate_args(False)
    model = BudgetedMaskablePPO(
        SlotPolicy,
        env,
        learning_rate=LinearSchedule(settings.learning_rate, settings.learning_rate / 10, 1.0),
        n_steps=settings.n_steps,
        batch_size=min(settings.batch_size, settings.n_steps * env.num_envs),
        n_epochs=settings.n_epochs,
        gamma=1.0,  # the buffer discounts
        gae_lambda=settings.gae_lambda,
        ent_coef=settings.ent_coef,
        target_kl=settings.target_kl,
        rollout_buffer_class=TimeDiscountedBuffer,
        rollout_buffer_kwargs={"time_constant": settings.time_constant},
        policy_kwargs={"hidden": settings.hidden, "shortest_first": settings.shortest_first},
        seed=seed,
        device="cpu",
    )
    model.budget = budget
    model.start_ent_coef = settings.ent_coef
    return model
