"""One training: its loop and its folder, whatever learns.

A learner says how to update, validate and save; the loop does the rest: it validates when that is due, keeps the best
and the last checkpoint, shows progress, and goes on from the folder of an interrupted training.
"""

from __future__ import annotations

import json
import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agents.training_budget import TrainingBudget
from llmsched_env.files import read_object, write_json

CONFIG = "config.json"
SAVE_EVERY = 60.0  # s between checkpoints that are not validated

Say = Callable[[str], None]
"""Prints a line of progress."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What a policy is worth on the validation runs.

    Attributes:
        value: by it the best checkpoint is chosen.
        numbers: for TensorBoard, by tag.
        text: the same in a line.
        larger_is_better: the direction of `value`.
    """

    value: float
    numbers: Mapping[str, float]
    text: str
    larger_is_better: bool = True

    def better_than(self, best: float | None) -> bool:
        """Whether the value improves on the best so far, None if there is none yet."""
        return best is None or (self.value > best if self.larger_is_better else self.value < best)


class Learner(ABC):
    """A training under way: the loop is here, the update elsewhere.

    Args:
        folder: of the training.
        budget: how long it lasts, and the time it has taken so far.
        say: prints a line for each validation.

    Attributes:
        best: value of the best validation so far, None before the first.
        validated: step that was validated last, None if none was.
    """

    save_when_interrupted = False
    """Whether the state is whole at any moment of an update."""

    def __init__(self, folder: Path, budget: TrainingBudget, say: Say = print) -> None:
        self.folder = folder
        self.budget = budget
        self.say = say
        self.best: float | None = None
        self.validated: int | None = None

    @property
    @abstractmethod
    def step(self) -> int:
        """Steps of the environments, or generations, so far."""

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.budget.spent(self.step) >= 1

    @abstractmethod
    def due(self) -> bool:
        """Whether to validate now, before the next update. The end of a training is validated in any case."""

    @abstractmethod
    def update(self) -> None:
        """Learn from one batch of experience: a rollout, a generation, a sweep."""

    @abstractmethod
    def validate(self) -> Validation:
        """Run the current policy on the validation runs, and log the numbers."""

    @abstractmethod
    def save(self, found: Validation | None = None, improved: bool = False) -> None:
        """Write the last checkpoint; after a validation, and if it `improved`, also the best one."""

    def close(self) -> None:  # noqa: B027, there may be nothing to close
        """Close files."""

    def train(self) -> None:
        """Train to the end, from where the folder stands.

        Raises:
            KeyboardInterrupt: if interrupted; the same training goes on from the last checkpoint.
        """
        if self.over and self.validated == self.step:
            self.close()
            return
        self.budget.start()
        try:
            with self._bar() as bar:
                self._loop(bar)
        except KeyboardInterrupt:
            if self.save_when_interrupted:
                self.save()
            raise
        finally:
            self.close()

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
        found = self.validate()
        improved = found.better_than(self.best)
        if improved:
            self.best = found.value
        self.validated = self.step
        with tqdm.external_write_mode(sys.stdout):
            self.say(f"{self.label()}: {found.text}")
        self.save(found, improved)

    def label(self) -> str:
        """Where the training stands, for a line of progress."""
        return f"step {self.step:>9,}"

    def _bar(self) -> tqdm:
        return tqdm(
            total=100.0,
            desc="training",
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def _show(self, bar: tqdm) -> None:
        left = self.budget.seconds_left(self.step)
        text = f"{tqdm.format_interval(left)} left" if math.isfinite(left) else "? left"
        bar.n = 100.0 * self.budget.spent(self.step)
        bar.set_postfix_str(f"{text}, {self.step:,} steps", refresh=False)
        bar.update(0)


def keep_config(folder: Path, config: Mapping[str, Any], free: Collection[str] = ()) -> None:
    """Write the configuration of a training to its folder, which is made if need be, at once or not at all.

    Args:
        folder: of the training.
        config: numbers, texts, and tuples and mappings of them.
        free: names of what may change when the training goes on.

    Raises:
        ValueError: if another training is in the folder, or one without a configuration.
    """
    asked, path = json.loads(json.dumps(config, default=lambda number: number.item())), folder / CONFIG  # of NumPy
    if path.exists():
        for name, kept, new in _differences(read_object(path), asked):
            if name not in free:
                raise ValueError(
                    f"there is another training in {folder}: {name} must be {kept!r} to go on with it, got {new!r}; "
                    "choose another folder (--out on the command line)"
                )
    elif any(folder.glob("*.npz")):
        raise ValueError(
            f"there is a training in {folder} without {CONFIG}, so it might be another one; "
            "choose another folder (--out on the command line)"
        )
    write_json(path, asked, indent=1)


def _differences(kept: Any, asked: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(name, value that was kept, value asked for) wherever two JSON values differ."""
    if isinstance(kept, dict) and isinstance(asked, dict):
        for key in kept | asked:
            yield from _differences(kept.get(key), asked.get(key), f"{name}.{key}" if name else key)
    elif isinstance(kept, list) and isinstance(asked, list) and len(kept) == len(asked):
        for k, pair in enumerate(zip(kept, asked, strict=True)):
            yield from _differences(*pair, f"{name}[{k}]")
    elif kept != asked:
        yield name, kept, asked
