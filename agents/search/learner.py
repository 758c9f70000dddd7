"""A search as a training: stage after stage, each from what the one before it found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from agents.run import Learner, Say, Validation, keep_config
from agents.search.stages import Stage, StageState
from agents.training_budget import TrainingBudget
from llmsched_env.policies.perceptron import Perceptron
from llmsched_env.policies.weights import save_weights, write_arrays

BEST, LAST = "best.npz", "last.npz"
_RUN = ("stage", "validated", "seconds", "best", "best_weights")  # in `last.npz`, with the state of the stage


class SearchProblem(ABC):
    """A kind of policy that is a vector of weights, and what makes weights good.

    Attributes:
        network: to which the weights belong.
        validate_every: generations between validations.
    """

    network: Perceptron
    validate_every: int

    @abstractmethod
    def first_weights(self) -> np.ndarray:
        """f8[n]: what the search begins with."""

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """What is searched, one stage after the other."""

    @abstractmethod
    def validate(self, weights: np.ndarray) -> Validation:
        """Of weights f8[n], on the same cases every time."""


def search(problem: SearchProblem, config: Mapping[str, Any], folder: Path, say: Say = print) -> np.ndarray:
    """Search to the end, from where the folder stands; returns the best weights validated, f8[n].

    Raises:
        ValueError: if a training with another configuration is in the folder.
    """
    keep_config(folder, config)
    learner = SearchLearner(problem, folder, say)
    learner.train()
    return learner.best_weights


class SearchLearner(Learner):
    """Searches the weights of a policy; the same problem gives the same weights whether or not it was interrupted.

    The folder gets `best.npz` (weights by name), `last.npz` (to go on from) and TensorBoard's logs.

    Args:
        problem: what is searched.
        folder: of the training; if a search is there, this one goes on from it.
        say: prints a line for each validation.

    Attributes:
        best_weights: f8[n], those with the best validation.
    """

    def __init__(self, problem: SearchProblem, folder: Path, say: Say = print) -> None:
        self.best_weights: np.ndarray
        self.problem = problem
        self.stages = problem.stages()
        kept = _read(folder / LAST)
        updates = sum(stage.updates for stage in self.stages)
        super().__init__(folder, TrainingBudget(max(1, updates), None, kept["seconds"] if kept else 0.0), say)
        if kept:
            self._number: int = kept["stage"]
            self.best, self.validated, self.best_weights = kept["best"], kept["validated"], kept["best_weights"]
            self.current: StageState = self.stages[self._number].resume(kept["state"])
            if not self.over:
                say(f"Going on from generation {self.step}.")
        else:
            first = problem.first_weights()
            self._number, self.best_weights = 0, first
            self.current = self.stages[0].start(first)
            self._enter_next()
        self._log = SummaryWriter(str(folder / "tensorboard"), purge_step=self.step)

    @property
    def step(self) -> int:
        """Generations of all stages so far; a sweep counts as one."""
        return sum(stage.updates for stage in self.stages[: self._number]) + self.current.done

    @property
    def over(self) -> bool:
        return self._number + 1 == len(self.stages) and self._stage_over

    @property
    def _stage_over(self) -> bool:
        return self.current.done >= self.stages[self._number].updates

    def due(self) -> bool:
        every = self.stages[self._number].validate_every or self.problem.validate_every
        return self.current.done == 0 or self.step % every == 0

    def update(self) -> None:
        generation = self.step
        for name, number in self.current.update(generation).items():
            self._log.add_scalar(f"training/{name}", number, generation)
        self._enter_next()

    def _enter_next(self) -> None:
        while self._stage_over and self._number + 1 < len(self.stages):
            weights = self.current.weights()
            self._number += 1
            self.current = self.stages[self._number].start(weights)

    def validate(self) -> Validation:
        found = self.problem.validate(self.current.weights())
        for name, number in found.numbers.items():
            self._log.add_scalar(f"validation/{name}", number, self.step)
        return found

    def save(self, found: Validation | None = None, improved: bool = False) -> None:
        if found is not None and improved:
            self.best_weights = self.current.weights()
            best = self.folder / BEST
            save_weights(best, self.problem.network, self.best_weights, value=found.value, generation=self.step)
        run = {"stage": self._number, "validated": self.validated, "seconds": self.budget.elapsed(), "best": self.best}
        write_arrays(self.folder / LAST, **self.current.state(), **run, best_weights=self.best_weights)

    def label(self) -> str:
        return f"generation {self.step:4d}, {self.budget.elapsed():5.0f} s{self.current.note}"

    def close(self) -> None:
        self._log.close()


def _read(path: Path) -> dict[str, Any] | None:
    """What `SearchLearner.save` wrote, the state of the stage under `state`."""
    if not path.exists():
        return None
    with np.load(path) as file:
        state: dict[str, Any] = dict(file)
    if missing := [name for name in _RUN if name not in state]:
        raise ValueError(f"{path} must hold the state of a search, but lacks {', '.join(missing)}")
    kept = {name: state.pop(name) for name in _RUN}
    whole, numbers = ("stage", "validated"), ("seconds", "best")
    kept |= {name: int(kept[name]) for name in whole} | {name: float(kept[name]) for name in numbers}
    return kept | {"state": state}
