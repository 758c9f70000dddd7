"""Training with an algorithm of Stable-Baselines3: an update is one rollout and the gradient steps on it."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

from agents.run import Learner, Say, Validation
from agents.sb3.environment import EPISODE_NUMBERS, restore_reward_statistics, reward_statistics
from agents.sb3.tensorboard import ReferenceLines, open_logger
from agents.training_budget import TrainingBudget
from llmsched_env.evaluation import TRAINING_SEEDS
from llmsched_env.files import replacing
from llmsched_env.objectives import Objective

BEST, LAST = "best.zip", "last.zip"
CHECKPOINTS = "checkpoints"
TAG = "serve/"

State = dict[str, Any]
"""What a checkpoint holds beyond the model: steps, updates, seconds, sittings, best, reward_statistics."""


class GradientProblem(ABC):
    """An environment with a model of its policy, and what makes a policy good.

    Attributes:
        objective: by its metric the best checkpoint is chosen.
        seed: of the training.
        validations: how often to validate, at equal shares of the budget.
        log_interval: rollouts (PPO) or episodes (DQN) between two logs.
    """

    objective: Objective
    seed: int
    validations: int
    log_interval: int = 1

    @abstractmethod
    def environment(self, spent: float) -> VecNormalize:
        """The environment to train on, once a share of the budget is spent."""

    @abstractmethod
    def model(self, env: VecNormalize, budget: TrainingBudget, seed: int, started: bool) -> BaseAlgorithm:
        """An untrained model; where training has `started`, its weights will be replaced."""

    def callbacks(self, model: BaseAlgorithm, budget: TrainingBudget, first: Path) -> list[BaseCallback]:
        """What acts during rollouts and updates; `first` is the checkpoint of step 0."""
        return []

    @abstractmethod
    def references(self) -> dict[str, dict[str, float]]:
        """By name, the numbers of schedulers to compare with on the validation runs."""

    @abstractmethod
    def numbers(self, model: BaseAlgorithm) -> dict[str, float]:
        """Of the policy's most probable actions on the validation runs, the metric of the objective among them."""

    @abstractmethod
    def save(self, model: BaseAlgorithm, path: Path, state: State) -> None:
        """Write a checkpoint, at once or not at all."""

    @abstractmethod
    def state(self, path: Path) -> State:
        """The state in a checkpoint."""

    def sitting(self, state: State) -> int:
        """A number that seeds a training that goes on from this state; 0 is that of the first sitting."""
        sittings: int = state["sittings"]
        return sittings


class GradientLearner(Learner):
    """Trains a model; goes on from the last checkpoint of the folder if there is one.

    Checkpoints are in `folder/checkpoints`: `best.zip` with the best validation, `last.zip`, and `step_<n>.zip` for
    each validation. Validation runs the most probable actions on tuning seeds, never on test seeds; its numbers are in
    TensorBoard under `serve/`.

    Args:
        problem: what is trained.
        folder: of the training.
        steps: environment steps over all environments; None for no limit.
        minutes: wall-clock time; None for no limit.
        say: prints progress messages.
    """

    save_when_interrupted = True

    def __init__(
        self, problem: GradientProblem, folder: Path, steps: int | None, minutes: float | None = None, say: Say = print
    ) -> None:
        self.problem = problem
        self.checkpoints = folder / CHECKPOINTS
        last = self.checkpoints / LAST
        self._before: State | None = problem.state(last) if last.exists() else None
        super().__init__(folder, TrainingBudget(steps, minutes, self._before["seconds"] if self._before else 0.0), say)
        self._steps_before: int = self._before["steps"] if self._before else 0
        self._sittings = (self._before["sittings"] if self._before else 0) + 1
        self._next = 0.0  # share of the budget at which to validate
        self.env: VecNormalize
        self.model: BaseAlgorithm | None = None

    @property
    def step(self) -> int:
        return self._steps_before if self.model is None else self.model.num_timesteps

    def train(self) -> None:
        if self._before and self.over:
            self.say(f"The budget was used up after {self.step:,} steps; give more --steps or --minutes to go on.")
            return
        self._prepare()
        super().train()

    def _prepare(self) -> None:
        before, problem = self._before, self.problem
        sitting = problem.sitting(before) if before else 0
        seed = int(np.random.SeedSequence([TRAINING_SEEDS, problem.seed, sitting]).generate_state(1)[0])
        self.env = problem.environment(self.budget.spent(self.step))
        model = problem.model(self.env, self.budget, seed, started=before is not None)
        if before:
            model.set_parameters(str(self.checkpoints / LAST), exact_match=True)
            model.num_timesteps, model._n_updates = before["steps"], before["updates"]
            restore_reward_statistics(self.env, before["reward_statistics"])
            self.best, self.validated = before["best"], before["steps"]
            self.say(f"Resuming at step {before['steps']:,}.")
        self.model = model
        if before:
            self._schedule()
        self.say("Running the baselines on the validation runs ...")
        self._references = problem.references()
        lines = {name: _tagged(numbers) for name, numbers in self._references.items()}
        self._lines = ReferenceLines(self.folder, lines, self.step)
        self._callbacks = [*problem.callbacks(model, self.budget, self.checkpoints / "step_0.zip"), EpisodeNumbers()]
        model.set_logger(open_logger(self.folder, self.step))

    def due(self) -> bool:
        return self._next <= self.budget.spent(self.step)

    def _schedule(self) -> None:
        times = self.problem.validations
        self._next = (np.floor(self.budget.spent(self.step) * times) + 1) / times

    def update(self) -> None:
        assert self.model is not None
        self.model.learn(1, self._callbacks, log_interval=self.problem.log_interval, reset_num_timesteps=False)

    def validate(self) -> Validation:
        assert self.model is not None
        objective, numbers = self.problem.objective, self.problem.numbers(self.model)
        value = numbers[objective.metric]
        others = ", ".join(f"{name} {objective.text(n[objective.metric])}" for name, n in self._references.items())
        found = Validation(value, numbers, f"{objective.text(value)} ({others})", objective.larger_is_better)
        best = value if found.better_than(self.best) else self.best
        for name, number in _tagged(numbers | {f"best_{objective.metric}": best}).items():
            self.model.logger.record(name, number)
        self.model.logger.dump(self.step)
        self._lines.extend(self.step)
        self._schedule()
        return found

    def save(self, found: Validation | None = None, improved: bool = False) -> None:
        assert self.model is not None
        state = {
            "steps": self.step,
            "updates": self.model._n_updates,
            "seconds": round(self.budget.elapsed(), 3),
            "sittings": self._sittings,
            "best": self.best,
            "reward_statistics": reward_statistics(self.env),
        }
        if found is None:
            self.problem.save(self.model, self.checkpoints / LAST, state)
            return
        path = self.checkpoints / f"step_{self.step}.zip"
        self.problem.save(self.model, path, state)
        for name in (BEST, LAST) if improved else (LAST,):
            with replacing(self.checkpoints / name) as partial:
                shutil.copyfile(path, partial)

    def close(self) -> None:
        if self.model is not None:
            self._lines.close()
            self.model.logger.close()
            self.env.close()


class EpisodeNumbers(BaseCallback):
    """Logs the means of what episodes report at their end, and the speed since the first update."""

    _started: tuple[float, int] | None = None

    def _on_training_start(self) -> None:  # of each update, since `learn` is called for each
        if self._started is None:
            self._started = self.model.start_time, self.model._num_timesteps_at_start
        self.model.start_time, self.model._num_timesteps_at_start = self._started

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        for name in EPISODE_NUMBERS:
            values = [episode[name] for episode in self.model.ep_info_buffer or () if name in episode]
            if values:
                self.logger.record(f"rollout/{name}", float(np.mean(values)))


def _tagged(numbers: dict[str, Any]) -> dict[str, Any]:
    return {TAG + name: number for name, number in numbers.items()}
