"""Search for the weights of a policy without gradients: an update is one generation, or one parameter tried."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.problem import Problem, Validation
from agents.run import Learner, Say
from agents.search.stages import Stage, StageState
from agents.tensorboard import writer
from agents.training_budget import TrainingBudget
from llmsched_env.policies.weights import read_arrays, write_arrays

LAST = "last.npz"
_RUN = ("stage", "validated", "seconds", "best")  # in the file, with the state of the stage


class SearchProblem(Problem):
    """A kind of policy that is a vector of weights, and what makes weights good."""

    @abstractmethod
    def first_weights(self) -> np.ndarray:
        """f8[n]: what the search begins with."""

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """What is searched, one stage after the other."""

    @abstractmethod
    def save_policy(self, path: Path, weights: np.ndarray, **about: float) -> None:
        """Write the policy with weights f8[n], and numbers about it, at once or not at all."""


class SearchLearner(Learner):
    """Searches the weights of a policy; the same problem gives the same weights whether or not it was interrupted.

    The folder gets the best policy, `last.npz` (to resume) and TensorBoard logs.

    Args:
        problem: what is searched.
        folder: of the training; if a search is there, this one goes on from it.
        say: prints a line for each validation.
    """

    unit = "updates"
    problem: SearchProblem

    def __init__(self, problem: SearchProblem, folder: Path, say: Say = print) -> None:
        self.stages = problem.stages()
        kept = _read(folder / LAST)
        updates = sum(stage.updates for stage in self.stages)
        super().__init__(problem, folder, TrainingBudget(max(1, updates), None, kept["seconds"] if kept else 0.0), say)
        if kept:
            self._number: int = kept["stage"]
            self.best, self.validated = kept["best"], kept["validated"]
            if not (folder / problem.best).exists():
                self.best = self.validated = None
            self.current: StageState = self._resumed(folder / LAST, kept["state"])
        else:
            self._number = 0
            self.current = self.stages[0].start(problem.first_weights())
            self._enter_next()
        self._log = writer(folder, "agent", self.step)

    def _resumed(self, path: Path, state: dict[str, Any]) -> StageState:
        """The stage that a file holds the state of."""
        try:
            current = self.stages[self._number].resume(state)
            size = current.weights().size
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{path} must hold the state of this search: {error!r}") from None
        if size != (wanted := self.problem.first_weights().size):
            raise ValueError(f"{path} must hold the state of a search over {wanted} weights, got {size}")
        return current

    @property
    def step(self) -> int:
        """Updates of all stages so far."""
        return sum(stage.updates for stage in self.stages[: self._number]) + self.current.done

    @property
    def over(self) -> bool:
        return self._number + 1 == len(self.stages) and self._stage_over

    @property
    def _stage_over(self) -> bool:
        return self.current.done >= self.stages[self._number].updates

    def due(self) -> bool:
        return self.current.due

    def update(self) -> None:
        number = self.step
        self.log({f"training/{name}": value for name, value in self.current.update(number).items()})
        self._enter_next()

    def _enter_next(self) -> None:
        while self._stage_over and self._number + 1 < len(self.stages):
            weights = self.current.weights()
            self._number += 1
            self.current = self.stages[self._number].start(weights)

    def policy(self) -> np.ndarray:
        return self.current.weights()

    def log(self, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            self._log.add_scalar(name, number, self.step)

    def save_best(self, found: Validation) -> None:
        best = self.folder / self.problem.best
        self.problem.save_policy(best, self.current.weights(), value=found.value, update=self.step)

    def save(self) -> None:
        if self.best is None:  # nothing to go on from before the first validation
            return
        run = {"stage": self._number, "validated": self.validated, "seconds": self.budget.elapsed(), "best": self.best}
        write_arrays(self.folder / LAST, **self.current.state(), **run)

    def close(self) -> None:
        self._log.close()


def _read(path: Path) -> dict[str, Any] | None:
    """What `SearchLearner.save` wrote, the state of the stage under `state`."""
    if not path.exists():
        return None
    state: dict[str, Any] = dict(read_arrays(path, "state of a search"))
    if missing := [name for name in _RUN if name not in state]:
        raise ValueError(f"{path} must hold the state of a search, but lacks {', '.join(missing)}")
    kept = {name: state.pop(name) for name in _RUN}
    if wrong := [name for name, value in kept.items() if value.shape != () or value.dtype.kind not in "fiu"]:
        raise ValueError(f"{path} must hold the state of a search, got no number under {', '.join(wrong)}")
    kept |= {name: int(kept[name]) for name in ("stage", "validated")}
    kept |= {name: float(kept[name]) for name in ("seconds", "best")}
    return kept | {"state": state}
