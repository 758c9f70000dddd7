"""Rollout buffers in which discount and lambda count simulated time: a step that takes none fades nothing."""

from typing import Any

import numpy as np
import torch
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from stable_baselines3.common.buffers import RolloutBuffer


class TimeDiscounted(RolloutBuffer):
    """A rollout buffer whose steps last `seconds`, f4[steps, envs], which the one who collects them writes.

    Args:
        args: of `RolloutBuffer`.
        time_constant: s over which the future is discounted by 1/e.
        lambda_seconds: s over which lambda falls to 1/e: advantages are sums of rewards over about so long, and
            estimated values beyond. None: `gae_lambda` a step, whatever its length.
        group: environments in a row that serve the same requests; above 1, advantages are relative to their mean at the
            same step, see `GroupBaselineBuffer`.
        kwargs: of `RolloutBuffer`.
    """

    def __init__(
        self, *args: Any, time_constant: float = np.inf, lambda_seconds: float | None = None, group: int = 1, **kwargs: Any
    ) -> None:
        self.time_constant, self.lambda_seconds, self.group = time_constant, lambda_seconds, group
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        self.seconds = np.zeros((self.buffer_size, self.n_envs), np.float32)
        super().reset()

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """GAE with a discount and a lambda for each step."""
        next_values, goes_on = last_values.clone().cpu().numpy().flatten(), 1.0 - dones.astype(np.float32)
        advantage = np.zeros(self.n_envs, np.float32)
        for step in reversed(range(self.buffer_size)):
            discount = goes_on * np.exp(-self.seconds[step] / self.time_constant)
            error = self.rewards[step] + discount * next_values - self.values[step]
            advantage = error + discount * self._lambda(step) * advantage
            self.advantages[step] = advantage
            next_values, goes_on = self.values[step], 1.0 - self.episode_starts[step]
        self.returns = self.advantages + self.values
        if self.group > 1:
            groups = self.advantages.reshape(self.buffer_size, -1, self.group)
            self.advantages = (groups - groups.mean(axis=2, keepdims=True)).reshape(self.advantages.shape)

    def _lambda(self, step: int) -> Any:
        if self.lambda_seconds is None:
            return self.gae_lambda
        return np.exp(-self.seconds[step] / self.lambda_seconds)


class MaskableTimeDiscounted(TimeDiscounted, MaskableRolloutBuffer):
    """The same with action masks."""
