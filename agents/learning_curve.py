"""The learning curve of a training: its validations and what they are compared with, kept in its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from agents.problem import Numbers, Validation
from llmsched_env.files import read_object_if_exists, write_json

FILE = "validations.json"
NEUTRAL, STATIC_BEST = "neutral", "static_best"
"""What tables call the neutral action, and the best constant one."""
OWN_ACTIONS = (NEUTRAL, STATIC_BEST)
"""References that are constant actions of the environment, not baselines."""
_REACH = 2.0  # a reference whose cost is more than so many times that of the worst point would flatten the curve


class Point(NamedTuple):
    """A validation: steps of training and s of it so far, and the value by which checkpoints are chosen."""

    step: int
    seconds: float
    value: float


@dataclass(slots=True)
class LearningCurve:
    """Validations in order, and the values of the references on the same runs.

    Attributes:
        path: the file.
        unit: what steps count.
        objective: name of the objective whose metric the values are; "" if of none.
        metric: that metric.
        title: of the values, in reports.
        scale: from the values to what is printed.
        value_unit: of what is printed.
        larger_is_better: the direction of the values.
        points: the validations.
        references: values of other schedulers, by name.
        lines: names of all references that were known so far.
        complete: whether these are all.
    """

    path: Path
    unit: str = "steps"
    objective: str = ""
    metric: str = ""
    title: str = "Validation"
    scale: float = 1.0
    value_unit: str = ""
    larger_is_better: bool = True
    points: list[Point] = field(default_factory=list)
    references: dict[str, float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    complete: bool = False

    @classmethod
    def of(cls, folder: Path) -> LearningCurve:
        """That of the training in a folder; without points if there is none yet."""
        record: dict[str, Any] = read_object_if_exists(folder / FILE)
        record["points"] = [Point(*point) for point in record.get("points", [])]
        return cls(folder / FILE, **record)

    def go_on(self, step: int, unit: str) -> None:
        """Forget what was validated after `step`, where the training goes on."""
        self.points, self.unit = [point for point in self.points if point.step <= step], unit

    def add(self, step: int, seconds: float, found: Validation) -> None:
        """Keep a validation."""
        if found.objective is not None:
            own = found.objective
            self.objective, self.metric, self.title = own.name, own.metric, own.title
            self.scale, self.value_unit = own.scale, own.unit
        self.larger_is_better = found.larger_is_better
        if not self.points or self.points[-1].step < step:
            self.points.append(Point(step, round(seconds, 3), found.value))
        self._write()

    def compare(self, references: Mapping[str, Numbers], complete: bool) -> None:
        """Keep the values of the references that are known by now, and whether these are all."""
        found = {name: numbers.get(self.metric, math.nan) for name, numbers in references.items()}
        self.references = {name: value for name, value in found.items() if math.isfinite(value)}
        self.lines, self.complete = list(references), complete
        self._write()

    def _write(self) -> None:
        record = {name: getattr(self, name) for name in self.__slots__ if name != "path"}
        write_json(self.path, record, indent=1)

    @property
    def best(self) -> Point:
        """The best validation, of equals the earliest: its checkpoint is kept."""
        return max(self.points, key=lambda point: point.value if self.larger_is_better else -point.value)

    @property
    def improved(self) -> bool:
        """Whether any validation is better than the first, of the start."""
        return self.best.step > self.points[0].step

    @property
    def best_baseline(self) -> str | None:
        """Name of the best reference that is no action of the environment."""
        names = [name for name in self.references if name not in OWN_ACTIONS]
        return max(names, key=self._score, default=None)

    def _score(self, name: str) -> float:
        return self.references[name] if self.larger_is_better else -self.references[name]

    def cost(self, value: float) -> float:
        """What is to be made small: the value itself, or the share that is missing to 1."""
        return 1.0 - value if self.larger_is_better else value

    def in_range(self) -> dict[str, float]:
        """The references that stand within the range of the curve, the best first; others would flatten it."""
        kept = [name for name in (*OWN_ACTIONS, self.best_baseline) if name in self.references]
        values = [self.references[str(name)] for name in kept] + [point.value for point in self.points]
        worst = max(map(self.cost, values), default=0.0)
        names = sorted(self.references, key=self._score, reverse=True)
        return {name: self.references[name] for name in names if self.cost(self.references[name]) <= _REACH * worst}

    def beyond(self) -> list[str]:
        """Names of the references that `in_range` leaves out."""
        return [name for name in self.references if name not in self.in_range()]
