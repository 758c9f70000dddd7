"""How long to train: a number of steps, a wall-clock time, or both."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from llmsched_env.validation import check_integer, check_number


@dataclass(slots=True)
class TrainingBudget:
    """Steps, minutes, or both: training ends when either is used up.

    Schedules (learning rate, exploration, curriculum) follow the share that is spent of whichever ends first.

    Args:
        steps: steps of the training; None for no limit.
        minutes: wall-clock time; None for no limit.
        seconds_before: time that earlier sittings of the same training took.

    Raises:
        ValueError: if there is no limit at all, or one that is not above 0.
    """

    steps: int | None
    minutes: float | None = None
    seconds_before: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("steps or minutes must be given, got None for both")
        if self.steps is not None:
            check_integer("steps", self.steps, at_least=1)
        if self.minutes is not None:
            check_number("minutes", self.minutes, above=0)

    def start(self) -> None:
        """Time counts from now."""
        self._started = time.monotonic()

    def elapsed(self) -> float:
        """Seconds of training, earlier sittings included."""
        return self.seconds_before + time.monotonic() - self._started

    def spent(self, steps: int) -> float:
        """Share of the budget that is used up after `steps` steps, in [0, 1]."""
        by_steps = 0.0 if self.steps is None else steps / self.steps
        by_time = 0.0 if self.minutes is None else self.elapsed() / (60.0 * self.minutes)
        return min(1.0, max(by_steps, by_time))

    def seconds_left(self, steps: int) -> float:
        """Estimate of the seconds left, nan before there is a basis for one."""
        spent = self.spent(steps)
        return self.elapsed() * (1 - spent) / spent if spent > 0 else math.nan
