"""What is trained, whatever learns: how a policy is judged, and what it is compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from agents.config import Training
from llmsched_env.objectives import Objective
from llmsched_env.sb3.policy_file import PolicyDescription

Policy = Callable[..., Any]
"""From an observation f4[features], and its action mask where there is one, to an action."""
Numbers = dict[str, float]
"""By name, what a policy or scheduler is worth on the validation runs."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What a policy is worth on the validation runs.

    Attributes:
        value: by it the best checkpoint is chosen.
        numbers: for TensorBoard, by tag.
        text: the same in a line.
        larger_is_better: the direction of `value`.
        objective: whose metric `value` is, under its name in `numbers` and in those of the references; None: of none.
    """

    value: float
    numbers: Mapping[str, float]
    text: str
    larger_is_better: bool = True
    objective: Objective | None = None

    def better_than(self, best: float | None) -> bool:
        """Whether the value improves on the best so far, None if there is none yet."""
        return best is None or (self.value > best if self.larger_is_better else self.value < best)


class Problem(ABC):
    """A policy to be trained: what it is compared with, and what it is worth.

    Attributes:
        config: of the training.
        best: name of the file of the best policy.
        workplace: folder in which searches for opponents are kept, which several trainings may share; None: nowhere.
    """

    config: Training
    best = "best.zip"
    workplace: Path | None = None

    @property
    def larger_is_better(self) -> bool:
        """The direction of the values of `validate`."""
        return True

    @property
    def complete(self) -> bool:
        """Whether `references` gives all that there will be; some may take a while."""
        return True

    def first(self) -> dict[str, Any]:
        """What must be the same when a training goes on, beyond its config."""
        return {}

    def begin(self, folder: Path) -> None:  # noqa: B027, there may be nothing to begin
        """Called when the training in a folder begins or goes on: work may start that goes on beside it."""

    def end(self) -> None:  # noqa: B027
        """Called when it ends or is interrupted."""

    @abstractmethod
    def references(self) -> dict[str, Numbers]:
        """Numbers of other schedulers on the validation runs, by name: of those that are known by now."""

    @abstractmethod
    def validate(self, policy: Any) -> Validation:
        """A policy on the validation runs, the same every time, on tuning seeds."""

    @abstractmethod
    def report(self, best: Path, folder: Path, command: str) -> str:
        """Compare the best checkpoint with others on test requests, which nothing has seen before.

        Writes `table.txt` and `report.html` to `folder` and returns the table.
        """


class EnvironmentProblem(Problem):
    """A policy that acts in an environment.

    Attributes:
        objective: by its metric the best checkpoint is chosen.
        arguments: of the environment, which say what actions mean.
        features: names of what a policy observes; empty where only their number is known.
    """

    objective: Objective
    arguments: dict[str, Any]
    features: tuple[str, ...] = ()

    @property
    def larger_is_better(self) -> bool:
        return self.objective.larger_is_better

    @abstractmethod
    def vector_env(self, num_envs: int, spent: float = 1.0) -> VectorEnv[Any, Any, Any]:
        """The environment to train on, once this share of the budget is spent."""

    @abstractmethod
    def numbers(self, policy: Policy) -> Numbers:
        """Of a policy on the validation runs, the metric of the objective among them."""

    def start_action(self) -> np.ndarray | None:
        """The action that the first policy prefers; None: it has no preference."""
        return None

    def description(self, training: Mapping[str, Any]) -> PolicyDescription:
        """What the file of a policy says of it, with facts about its training."""
        config = self.config
        return PolicyDescription(config.name, config.env_id, self.arguments, self.features, training)

    def validate(self, policy: Policy) -> Validation:
        objective, numbers = self.objective, self.numbers(policy)
        value = numbers[objective.metric]
        return Validation(value, numbers, objective.text(value), objective.larger_is_better, objective)
