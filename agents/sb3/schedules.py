"""Schedules of Stable-Baselines3's algorithms that follow a training budget, not a number of steps."""

from __future__ import annotations

from agents.training_budget import TrainingBudget


class FollowsBudget:
    """Mixed into an algorithm: learning rate and exploration follow the share of the budget that is spent."""

    budget: TrainingBudget

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        self._current_progress_remaining = 1.0 - self.budget.spent(num_timesteps)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "budget"]  # type: ignore[misc]


class DecayingEntropy(FollowsBudget):
    """Mixed into an algorithm with an entropy bonus, which then decays linearly to 0 over the budget."""

    start_ent_coef: float

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        self.ent_coef = self.start_ent_coef * self._current_progress_remaining
