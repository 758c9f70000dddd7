"""A pull back to where a policy started, so that the first updates don't destroy a good start."""

from collections.abc import Mapping

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from agents.training_budget import TrainingBudget

_ACTOR = ("mlp_extractor.policy_net.", "action_net.")


def actor_weights(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of the weights by which a policy of PPO decides, without those of its value network.

    Args:
        state: `state_dict` of the policy.
    """
    return {name: weights.detach().clone() for name, weights in state.items() if name.startswith(_ACTOR)}


class PullToStart(BaseCallback):
    """After each update, moves the policy a share of the way back to its start.

    This is the gradient step of a penalty on the squared distance to the start (L2-SP, X. Li et al., ICML 2018), taken
    apart from that of the loss, as AdamW does with weight decay. The share falls linearly to 0 over the budget.

    Args:
        pull: the share at the start of the budget, in [0, 1].
        start: `actor_weights` to go back to.
        budget: of the training.
    """

    def __init__(self, pull: float, start: Mapping[str, torch.Tensor], budget: TrainingBudget) -> None:
        super().__init__()
        self._pull, self._start, self._budget = pull, start, budget
        self._updates = 0

    def init_callback(self, model: BaseAlgorithm) -> None:
        super().init_callback(model)
        self._updates = model._n_updates  # the pull has followed all earlier updates

    def _on_rollout_start(self) -> None:
        self._move()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._move()

    def _move(self) -> None:
        if self.model._n_updates == self._updates:
            return
        self._updates = self.model._n_updates
        share = self._pull * (1.0 - self._budget.spent(self.num_timesteps))
        weights = dict(self.model.policy.named_parameters())
        with torch.no_grad():
            away = sum(float((weights[name] - start).square().sum()) for name, start in self._start.items())
            for name, start in self._start.items():
                weights[name].lerp_(start, share)
        self.logger.record("train/anchor_pull", share)
        self.logger.record("train/anchor_distance", away**0.5)
