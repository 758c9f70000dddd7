"""TensorBoard logs that a resumed training continues: the agent, lines of the references, their differences.

The first charts, under `against/`, show by how much the agent is better than the best baseline and than the best
constant action: 0 is level with them. Under `serve/` are the numbers of all. In each chart only the references are
drawn that stand near the best of them, since one with a latency of 300 s would flatten the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from agents.learning_curve import OWN_ACTIONS, STATIC_BEST, LearningCurve, Point
from agents.problem import Numbers

FOLDER = "tensorboard"
TAG = "serve/"
"""Before the name of every number of a validation."""
AGAINST = "against/"
"""Before the name of every difference of the agent to another."""
_REACH = 2.0  # spans of the range of the leading references, within which others are drawn


def writer(folder: Path, run: str, first_step: int) -> SummaryWriter:
    """The writer of one run in the folder of a training; what was logged after `first_step` is dropped."""
    return SummaryWriter(str(folder / FOLDER / run), purge_step=first_step + 1 if first_step > 0 else None)


class ReferenceLines:
    """What stands beside the agent's charts, each a TensorBoard run of its own, so that they overlay.

    Args:
        folder: of the training.
        curve: of the training.
        first_step: where to begin; on resuming, the step of the checkpoint.
    """

    def __init__(self, folder: Path, curve: LearningCurve, first_step: int) -> None:
        self._folder, self._curve, self._first = folder, curve, first_step
        self._writers: dict[str, SummaryWriter] = {}
        self._drawn: dict[str, int] = dict.fromkeys(map(_run, curve.lines), first_step)  # up to which step
        if curve.complete:
            self._drawn |= dict.fromkeys(map(_against_run, _opponents(curve)), first_step)

    def draw(self, references: Mapping[str, Numbers], complete: bool) -> None:
        """Draw all lines on to the last validation.

        Args:
            references: numbers by name of those that are known by now; a new one gets its line from the beginning.
            complete: whether these are all; only then it is known which is the best.
        """
        curve = self._curve
        leading = [name for name in (*OWN_ACTIONS, curve.best_baseline or "") if name in references]
        shown = _near({name: references[str(name)] for name in leading}, references)
        for name, numbers in shown.items():
            for point in self._new(_run(name)):
                for number, value in numbers.items():
                    self._writer(_run(name)).add_scalar(TAG + number, value, point.step)
        for name in _opponents(curve) if complete else ():
            for point in self._new(_against_run(name)):
                for tag, value in differences(curve, point.value, curve.references[name]).items():
                    self._writer(_against_run(name)).add_scalar(AGAINST + tag, value, point.step)
        for file in self._writers.values():
            file.flush()

    def _new(self, run: str) -> list[Point]:
        """The points that a line does not have yet."""
        new = [point for point in self._curve.points if point.step > self._drawn.get(run, -1)]
        if new:
            self._drawn[run] = new[-1].step
        return new

    def _writer(self, run: str) -> SummaryWriter:
        if run not in self._writers:
            self._writers[run] = writer(self._folder, run, self._first)
        return self._writers[run]

    def close(self) -> None:
        """Close the files."""
        for file in self._writers.values():
            file.close()
        self._writers = {}


def differences(curve: LearningCurve, own: float, other: float) -> dict[str, float]:
    """By how much a value is better than another, by tag: in points, and as the share of the cost that is saved.

    Below 0 the other one is better, and the share is what it saves: -50 and 50 are equally far from level.
    """
    less, more = sorted((curve.cost(own), curve.cost(other)))
    saved = math.copysign(100.0 * (1.0 - less / more), curve.cost(other) - curve.cost(own)) if more > 0 else math.nan
    if not curve.larger_is_better:
        return {f"lower_{curve.objective or 'cost'}_percent": saved}
    points = {f"{curve.objective}_points": 100.0 * (own - other)}
    return points | ({} if math.isnan(saved) else {"fewer_misses_percent": saved})


def _near(leading: Mapping[str, Numbers], references: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """Of all references the numbers that stand near those of the leading ones; all if there are none to lead."""
    if not leading:
        return dict(references)
    kept: dict[str, Numbers] = {name: {} for name in references}
    for number in next(iter(references.values())):
        values = [numbers[number] for numbers in leading.values() if number in numbers]
        low, high = min(values, default=-math.inf), max(values, default=math.inf)
        margin = _REACH * max(high - low, 0.1 * max(abs(low), abs(high)))
        for name, numbers in references.items():
            if number in numbers and not (numbers[number] < low - margin or numbers[number] > high + margin):
                kept[name][number] = numbers[number]
    return kept


def _opponents(curve: LearningCurve) -> list[str]:
    """What the agent is measured against: the best baseline, and the best constant action."""
    return [name for name in (curve.best_baseline, STATIC_BEST) if name is not None and name in curve.references]


def _run(name: str) -> str:
    return f"baseline_{_plain(name)}"


def _against_run(name: str) -> str:
    return f"agent_against_{_plain(name)}"


def _plain(name: str) -> str:
    """A name without characters that a shell or a file system minds."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_")
