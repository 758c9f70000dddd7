"""What happens beside training: validation, checkpoints, the progress bar, and stopping."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from agents.problems.serving_numbers import validate
from agents.sb3.checkpoint import AgentMeta, as_scheduler, save_agent
from agents.sb3.ppo import EPISODE_NUMBERS
from agents.sb3.tensorboard import ReferenceLines
from agents.sb3.training_budget import Budget
from llmsched_env.evaluation.cases import Cases
from llmsched_env.evaluation.objective import Objective

TAG = "serve/"


class StopWhenSpent(BaseCallback):
    """End training between two updates when the budget is used up."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget
        self._stop = False

    def _on_rollout_start(self) -> None:
        self._stop = self._budget.spent(self.num_timesteps) >= 1

    def _on_step(self) -> bool:
        return not self._stop


class Validate(BaseCallback):
    """Validate and save the current policy at equal shares of the budget, and keep the best.

    Each time, the most probable actions run on the validation cases, the numbers go to TensorBoard under `serve/`, and
    the checkpoint `step_<n>.zip` is written; `last.zip` is a copy of the latest, `best.zip` of the one with the best
    objective so far. Validation cases come from tuning seeds, never from test seeds.

    Args:
        folder: where checkpoints go.
        cases: the validation runs.
        objective: by which the best checkpoint is chosen.
        budget: of the training.
        describe: the description to save with the model now, given the best value so far (None: none).
        lines: baselines to draw beside the agent.
        times: how often to validate over the whole budget.
        best: value of `best.zip` so far, for a resumed training.
    """

    def __init__(
        self,
        folder: Path,
        cases: Cases,
        objective: Objective,
        budget: Budget,
        describe: Callable[[float | None], AgentMeta],
        lines: ReferenceLines,
        times: int,
        best: float | None = None,
    ) -> None:
        super().__init__()
        self.best = best
        self._folder = folder
        self._cases = cases
        self._objective = objective
        self._budget = budget
        self._describe = describe
        self._lines = lines
        self._times = times
        self._next = 0.0

    def _on_training_start(self) -> None:
        if self.num_timesteps > 0:  # the checkpoint that training goes on from has been validated
            self._schedule()

    def _on_rollout_start(self) -> None:
        if self._next <= self._budget.spent(self.num_timesteps) < 1:  # the end is validated by _on_training_end
            self.run()
            self._schedule()

    def _schedule(self) -> None:
        self._next = (np.floor(self._budget.spent(self.num_timesteps) * self._times) + 1) / self._times

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.run()

    def run(self) -> None:
        """Validate, log and save now."""
        numbers = validate(as_scheduler(self.model, self._describe(self.best)), self._cases)
        value = numbers[self._objective.metric]
        improved = self.best is None or self._objective.score(value) > self._objective.score(self.best)
        if improved:
            self.best = value
        numbers[f"best_{self._objective.metric}"] = self.best
        for name, number in numbers.items():
            self.logger.record(TAG + name, number)
        self.logger.dump(self.num_timesteps)
        self._lines.extend(self.num_timesteps)
        self.save(improved)

    def save(self, improved: bool = False) -> Path:
        """Write the checkpoint of this step and copy it to `last.zip`, and to `best.zip` if it `improved`."""
        path = self._folder / f"step_{self.num_timesteps}.zip"
        save_agent(self.model, path, self._describe(self.best))
        for name in ("last.zip", "best.zip")[: 1 + improved]:
            partial = self._folder / f"{name}.partial"
            shutil.copyfile(path, partial)
            partial.replace(self._folder / name)
        return path


class Progress(BaseCallback):
    """A progress bar over the budget, with the time left, and episode numbers for TensorBoard."""

    def __init__(self, budget: Budget, validation: Validate, objective: Objective) -> None:
        super().__init__()
        self._budget = budget
        self._validation = validation
        self._objective = objective
        self._bar: tqdm | None = None

    def _on_training_start(self) -> None:
        self._bar = tqdm(
            total=100.0,
            desc="training",
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 30.0,
        )
        self._show()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        for name in EPISODE_NUMBERS:
            values = [episode[name] for episode in self.model.ep_info_buffer]
            if values:
                self.logger.record(f"rollout/{name}", float(np.mean(values)))
        self._show()

    def _show(self) -> None:
        left = self._budget.seconds_left(self.num_timesteps)
        text = f"{tqdm.format_interval(left)} left" if np.isfinite(left) else "? left"
        if self._validation.best is not None:
            best = self._objective.scale * self._validation.best
            text += f", {self.num_timesteps:,} steps, best {self._objective.metric} {best:.4g} {self._objective.unit}"
        self._bar.n = 100.0 * self._budget.spent(self.num_timesteps)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(0)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._show()
            self._bar.close()
