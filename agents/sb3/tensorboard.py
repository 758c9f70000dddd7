"""TensorBoard logs that a resumed training continues."""

from collections.abc import Mapping
from pathlib import Path

from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


def open_logger(run: Path, first_step: int) -> Logger:
    """The logger of the agent; on resuming, what was logged after `first_step` is dropped."""
    output = TensorBoardOutputFormat(str(run / FOLDER / "agent"))
    if first_step > 0:
        output.writer.close()
        output.writer = SummaryWriter(str(run / FOLDER / "agent"), purge_step=first_step + 1)
    return Logger(str(run), [output])


class ReferenceLines:
    """Constant values of other schedulers, each a TensorBoard run of its own, so that they overlay the agent's charts.

    Args:
        run: folder of the training.
        lines: numbers under the tags of the agent's, by scheduler.
        first_step: where to begin; on resuming, the step of the checkpoint.
    """

    def __init__(self, run: Path, lines: Mapping[str, Mapping[str, float]], first_step: int) -> None:
        purge = first_step + 1 if first_step > 0 else None
        self._lines = lines
        self._writers = {
            name: SummaryWriter(str(run / FOLDER / f"baseline_{name}"), purge_step=purge) for name in lines
        }

    def extend(self, step: int) -> None:
        """Draw all lines on to `step`."""
        for name, writer in self._writers.items():
            for tag, value in self._lines[name].items():
                writer.add_scalar(tag, value, step)
            writer.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
