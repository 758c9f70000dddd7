"""Rollout buffers in which discount and lambda count simulated time: a step that takes none fades nothing."""

from typing import Any

import numpy as np
import torch
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from stable_baselines3.common.buffers import RolloutBuffer

from agents.sb3.group_baseline import relative_to_group


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
        self,
        *args: Any,
        time_constant: float = np.inf,
        lambda_seconds: float | None = None,
        group: int = 1,
        **kwargs: Any,
    ) -> None:
        self.time_constant, self.lambda_seconds, self.group = time_constant, lambda_seconds, group
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        self.seconds = np.zeros((self.buffer_size, self.n_envs), np.float32)
        super().reset()

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """GAE with a discount and a lambda for each step.

        With `lambda_seconds`, returns are those of lambda 1: rewards to the end of the rollout, and the value there.
        From values a short lambda ahead the value network would need many updates to see as far as the discount.
        """
        last, ends = last_values.clone().cpu().numpy().flatten(), dones.astype(np.float32)
        following = np.concatenate([self.values[1:], last[None]])
        goes_on = 1.0 - np.concatenate([self.episode_starts[1:], ends[None]])
        discount = goes_on * np.exp(-self.seconds / self.time_constant)
        errors = self.rewards + discount * following - self.values
        if self.lambda_seconds is None:
            self.advantages = _faded_sums(errors, discount * self.gae_lambda)
            self.returns = self.advantages + self.values
        else:
            self.advantages = _faded_sums(errors, discount * np.exp(-self.seconds / self.lambda_seconds))
            self.returns = _faded_sums(errors, discount) + self.values
        if self.group > 1:
            self.advantages = relative_to_group(self.advantages, self.group)


def _faded_sums(errors: np.ndarray, fading: np.ndarray) -> np.ndarray:
    """f4[steps, envs]: at each step its error, and `fading` of the step times the sum after it."""
    sums, after = np.zeros_like(errors), np.zeros(errors.shape[1], errors.dtype)
    for step in reversed(range(len(errors))):
        after = sums[step] = errors[step] + fading[step] * after
    return sums


class MaskableTimeDiscounted(TimeDiscounted, MaskableRolloutBuffer):
    """The same with action masks."""
