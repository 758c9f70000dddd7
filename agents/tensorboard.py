"""TensorBoard logs that a resumed training continues."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
TAG = "serve/"
"""Before the name of every number of a validation."""


def writer(folder: Path, run: str, first_step: int) -> SummaryWriter:
    """The writer of one run in the folder of a training; what was logged after `first_step` is dropped."""
    return SummaryWriter(str(folder / FOLDER / run), purge_step=first_step + 1 if first_step > 0 else None)


class ReferenceLines:
    """Constant values of other schedulers, each a TensorBoard run of its own, so that they overlay the agent's charts.

    Args:
        folder: of the training.
        references: numbers by scheduler and name.
        first_step: where to begin; on resuming, the step of the checkpoint.
    """

    def __init__(self, folder: Path, references: Mapping[str, Mapping[str, float]], first_step: int) -> None:
        self._references = references
        self._writers = {name: writer(folder, f"baseline_{name}", first_step) for name in references}

    def extend(self, step: int) -> None:
        """Draw all lines on to `step`."""
        for name, file in self._writers.items():
            for number, value in self._references[name].items():
                file.add_scalar(TAG + number, value, step)
            file.flush()

    def close(self) -> None:
        """Close the files."""
        for file in self._writers.values():
            file.close()
