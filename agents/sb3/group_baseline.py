"""Advantages relative to environments that serve the same requests: an input-dependent baseline."""

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer


class GroupBaselineBuffer(RolloutBuffer):
    """A rollout buffer that subtracts from each advantage the mean over its group at the same step.

    The environments of a group serve the same requests, so the mean is the effect of the requests, not of the decisions
    (H. Mao et al., Variance Reduction for Reinforcement Learning in Input-Driven Environments, ICLR 2019). Equal steps
    of a group must be at equal times, which takes a decision interval and a horizon. The value network learns the same
    as without.

    Args:
        args: of `RolloutBuffer`.
        group: environments in a row that share their requests.
        kwargs: of `RolloutBuffer`.
    """

    def __init__(self, *args: Any, group: int, **kwargs: Any) -> None:
        self.group = group
        super().__init__(*args, **kwargs)

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """As in `RolloutBuffer`, then relative to the group; returns stay those of each environment."""
        super().compute_returns_and_advantage(last_values, dones)
        self.advantages = relative_to_group(self.advantages, self.group)


def relative_to_group(advantages: np.ndarray, group: int) -> np.ndarray:
    """f4[steps, envs] less the mean over the `group` environments in a row that share their requests."""
    groups = advantages.reshape(len(advantages), -1, group)
    return np.asarray((groups - groups.mean(axis=2, keepdims=True)).reshape(advantages.shape))
