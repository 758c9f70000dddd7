"""One training: its loop, whatever learns.

A learner says how to update, what its policy is and how to save; the loop does the rest: it validates when that is due,
keeps the best and the last checkpoint, logs to TensorBoard beside the lines of the references, shows progress, and goes
on from the folder of an interrupted training.
"""

from __future__ import annotations

import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agents.learning_curve import LearningCurve
from agents.problem import Problem, Validation
from agents.tensorboard import TAG, ReferenceLines
from agents.training_budget import TrainingBudget

SAVE_EVERY = 60.0  # s between checkpoints that are not validated

Say = Callable[[str], None]
"""Prints a line of progress."""


class Learner(ABC):
    """A training under way: the loop is here, the update elsewhere.

    Args:
        problem: what is trained.
        folder: of the training.
        budget: how long it lasts, and the time it has taken so far.
        say: prints a line for each validation.

    Attributes:
        best: value of the best validation so far, None before the first.
        validated: step that was validated last, None if none was.
        curve: the validations so far.
        watch: called after each validation with the share of the budget that is spent and the value.
    """

    unit = "steps"
    """What `step` counts."""
    save_when_interrupted = False
    """Whether the state is whole at any moment of an update."""

    def __init__(self, problem: Problem, folder: Path, budget: TrainingBudget, say: Say = print) -> None:
        self.problem = problem
        self.folder = folder
        self.budget = budget
        self.say = say
        self.best: float | None = None
        self.validated: int | None = None
        self.curve = LearningCurve.of(folder)
        self.watch: Callable[[float, float], None] = lambda spent, value: None

    @property
    @abstractmethod
    def step(self) -> int:
        """Steps of the environments, or updates of a search, so far."""

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.budget.spent(self.step) >= 1

    @abstractmethod
    def due(self) -> bool:
        """Whether to validate now, before the next update. The end of a training is validated in any case."""

    def prepare(self) -> None:  # noqa: B027, there may be nothing to prepare
        """What a training needs that has not ended yet, such as the environments."""

    @abstractmethod
    def update(self) -> None:
        """Learn from one batch of experience: a rollout, a generation, a parameter of a coordinate search."""

    @abstractmethod
    def policy(self) -> Any:
        """The present policy, as the problem validates it."""

    @abstractmethod
    def log(self, numbers: Mapping[str, float]) -> None:
        """Write numbers, by tag, to TensorBoard."""

    @abstractmethod
    def save_best(self, found: Validation) -> None:
        """Write the present policy, of which this was found, as the best one."""

    @abstractmethod
    def save(self) -> None:
        """Write the last checkpoint, which refers to the best one: that has been written before."""

    def validated_now(self) -> None:  # noqa: B027, there may be nothing to note
        """Called when the present policy has been validated, before the last checkpoint is written."""

    def close(self) -> None:  # noqa: B027, there may be nothing to close
        """Close files."""

    def train(self) -> None:
        """Train to the end, from where the folder stands.

        Raises:
            KeyboardInterrupt: if interrupted; the same training goes on from the last checkpoint.
        """
        if self.over and self.validated == self.step:
            self.say(f"The training is over after {self.step:,} {self.unit}.")
            self.close()
            return
        if self.validated is not None:
            self.say(f"Going on from {self.step:,} {self.unit}.")
        self.prepare()
        self.curve.go_on(-1 if self.validated is None else self.validated, self.unit)
        self.problem.begin(self.folder)
        self._lines = ReferenceLines(self.folder, self.curve, self.step)
        try:
            self.say("Running the references on the validation runs ...")
            self.problem.references()
            self.budget.start()
            with self._bar() as bar:
                self._loop(bar)
        except KeyboardInterrupt:
            if self.save_when_interrupted:
                self.save()
            raise
        finally:
            self.problem.end()
            self._lines.close()
            self.close()

    def settle(self) -> None:
        """Bring the curve and its charts up to date with all references, also those that were not known in time."""
        if self.curve.complete or not self.curve.points:
            return
        self._lines = ReferenceLines(self.folder, self.curve, self.curve.points[-1].step)
        self._compare()
        self._lines.close()

    def _loop(self, bar: tqdm) -> None:
        saved = time.monotonic()
        while True:
            if (self.over or self.due()) and self.validated != self.step:
                self._validate()
                saved = time.monotonic()
            if self.over:
                return
            self.update()
            if time.monotonic() - saved > SAVE_EVERY:
                self.save()
                saved = time.monotonic()
            self._show(bar)

    def _validate(self) -> None:
        found = self.problem.validate(self.policy())
        if found.better_than(self.best):
            self.save_best(found)
            self.best = found.value
        self.validated = self.step
        self.validated_now()
        self.curve.add(self.step, self.budget.elapsed(), found)
        self.save()
        best: dict[str, float] = {} if self.best is None else {"best": self.best}
        self.log({TAG + name: number for name, number in {**found.numbers, **best}.items()})
        self._compare()
        with tqdm.external_write_mode(sys.stdout):
            self.say(f"{self.unit} {self.step:>9,}, {self.budget.elapsed():5.0f} s: {found.text}")
        self.watch(self.budget.spent(self.step), found.value)

    def _compare(self) -> None:
        references = self.problem.references()
        self.curve.compare(references, self.problem.complete)
        self._lines.draw(references, self.problem.complete)

    def _bar(self) -> tqdm:
        return tqdm(
            total=100.0,
            desc="training",
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
            dynamic_ncols=True,
            disable=None,
        )

    def _show(self, bar: tqdm) -> None:
        left = self.budget.seconds_left(self.step)
        text = f"{tqdm.format_interval(left)} left" if math.isfinite(left) else "? left"
        bar.n = 100.0 * self.budget.spent(self.step)
        bar.set_postfix_str(f"{text}, {self.step:,} {self.unit}", refresh=False)
        bar.update(0)
