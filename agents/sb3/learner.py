"""Training with an algorithm of Stable-Baselines3: an update is one rollout and the gradient steps on it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from stable_baselines3.common.vec_env import VecNormalize

from agents.config import SCRATCH, TUNED_START
from agents.problem import EnvironmentProblem, Policy, Validation
from agents.run import Learner, Say
from agents.sb3.algorithms import make_model, prefer
from agents.sb3.callbacks import EpisodeNumbers, NoteSeconds, aids_callbacks
from agents.sb3.environment import normalized, restore_reward_statistics, reward_statistics
from agents.sb3.time_buffer import TimeDiscounted
from agents.tensorboard import FOLDER, writer
from agents.training_budget import TrainingBudget
from llmsched_env.evaluation.cases import TRAINING_SEEDS
from llmsched_env.files import replacing
from llmsched_env.sb3.mlp_policies import network_of_model
from llmsched_env.sb3.policy_file import read_description, save_policy

LAST, FIRST = "last.zip", "first.zip"


class GradientLearner(Learner):
    """Trains a model; goes on from the last checkpoint of the folder if there is one.

    Checkpoints are `best.zip` with the best validation, `last.zip`, and `first.zip`, from before the first update.

    Args:
        problem: what is trained.
        folder: of the training.
        say: prints progress messages.
    """

    save_when_interrupted = True
    problem: EnvironmentProblem

    def __init__(self, problem: EnvironmentProblem, folder: Path, say: Say = print) -> None:
        config = problem.config
        self._before = _state(folder / LAST)
        seconds = self._before["seconds"] if self._before else 0.0
        super().__init__(problem, folder, TrainingBudget(config.steps, config.minutes, seconds), say)
        if self._before:
            self.best, self.validated = self._before["best"], self._before["validated"]
            kept = _state(folder / problem.best)  # may be newer than the last checkpoint, if it was killed in between
            if kept is None:
                self.best = self.validated = None
            elif self.best is None or (kept["best"] > self.best) == problem.larger_is_better:
                self.best = kept["best"]
        self._next = 0.0  # share of the budget at which to validate
        self.env: VecNormalize
        self.model: BaseAlgorithm | None = None

    @property
    def step(self) -> int:
        if self.model is not None:
            return self.model.num_timesteps
        return self._before["steps"] if self._before else 0

    def prepare(self) -> None:
        before, problem, config = self._before, self.problem, self.problem.config
        sitting = before["sittings"] if before else 0
        seed = int(np.random.SeedSequence([TRAINING_SEEDS, config.seed, sitting]).generate_state(1)[0])
        env = problem.vector_env(config.num_envs, self.budget.spent(self.step))
        self.env = normalized(env, config)
        model = make_model(config, self.env, self.budget, seed)
        if before:
            model.set_parameters(str(self.folder / LAST), exact_match=True)
            model.num_timesteps, model._n_updates = before["steps"], before["updates"]
            restore_reward_statistics(self.env, before["reward_statistics"])
        elif config.start not in (SCRATCH, TUNED_START):
            model.set_parameters(config.start, exact_match=False)
        elif config.start == TUNED_START and (action := problem.start_action()) is not None:
            prefer(model, action, config)
        self.model = model
        if before:
            self._schedule()
        self._sittings = sitting + 1
        acting = aids_callbacks(config, model, self.budget, self.folder / FIRST)
        noting = [NoteSeconds(self.env.unwrapped)] if _discounts_in_time(model) else []
        self._callbacks: list[BaseCallback] = [*acting, *noting, EpisodeNumbers()]
        output = TensorBoardOutputFormat(str(self.folder / FOLDER / "agent"))
        output.writer.close()
        output.writer = writer(self.folder, "agent", self.step)
        model.set_logger(Logger(str(self.folder), [output]))

    def due(self) -> bool:
        return self._next <= self.budget.spent(self.step)

    def _schedule(self) -> None:
        times = self.problem.config.validations
        self._next = (np.floor(self.budget.spent(self.step) * times) + 1) / times

    def update(self) -> None:
        assert self.model is not None
        log_interval = self.env.num_envs if self.problem.config.algo == "dqn" else 1  # episodes, or rollouts
        self.model.learn(1, self._callbacks, log_interval=log_interval, reset_num_timesteps=False)

    def policy(self) -> Policy:
        assert self.model is not None
        return network_of_model(self.model)

    def log(self, numbers: Mapping[str, float]) -> None:
        assert self.model is not None
        for name, number in numbers.items():
            self.model.logger.record(name, number)
        self.model.logger.dump(self.step)

    def validated_now(self) -> None:
        self._schedule()

    def save_best(self, found: Validation) -> None:
        assert self.model is not None
        save_policy(
            self.folder / self.problem.best, self.problem.description(self._about(found.value)), model=self.model
        )

    def save(self) -> None:
        assert self.model is not None
        (self.folder / LAST).parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / LAST) as fresh:
            save_policy(fresh, self.problem.description(self._about(self.best)), model=self.model)
            if self.step == 0:
                with replacing(self.folder / FIRST) as partial:
                    shutil.copyfile(fresh, partial)

    def _about(self, best: float | None) -> dict[str, Any]:
        """What a checkpoint says of the training beyond the model."""
        assert self.model is not None
        return {
            "steps": self.step,
            "updates": self.model._n_updates,
            "seconds": round(self.budget.elapsed(), 3),
            "sittings": self._sittings,
            "best": best,
            "validated": self.validated,
            "reward_statistics": reward_statistics(self.env),
        }

    def close(self) -> None:
        if self.model is not None:
            self.model.logger.close()
            self.env.close()


def _discounts_in_time(model: BaseAlgorithm) -> bool:
    return isinstance(getattr(model, "rollout_buffer", None), TimeDiscounted)


def _state(last: Path) -> dict[str, Any] | None:
    """What `save` wrote of the training beyond the model, None if nothing."""
    if not last.exists():
        return None
    description = read_description(last)
    if description is None or "reward_statistics" not in description.training:
        raise ValueError(f"{last} must be the checkpoint of a training, got a model without its state")
    return dict(description.training)
