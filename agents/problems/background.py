"""The opponents of a training, tuned by a second process while the agent learns.

Training takes one core. Another one compiles and tunes the baselines meanwhile, into the folder of the training.
Whoever needs them then reads them there, and computes what is not there yet.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOG = "tuning.log"
PROGRAM = "agents.prepare_opponents"
_CLONE = Path(__file__).resolve().parents[2]


class Background:
    """A process that prepares the opponents of the training in a folder.

    Args:
        folder: of the training, with its config.
        workplace: where what is tuned is kept.
    """

    def __init__(self, folder: Path, workplace: Path) -> None:
        search = os.pathsep.join([str(_CLONE), *filter(None, [os.environ.get("PYTHONPATH")])])
        with (workplace / LOG).open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(folder.resolve()), str(workplace.resolve())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": search},
            )  # fmt: skip

    @property
    def done(self) -> bool:
        """Whether it has ended well."""
        return self._process.poll() == 0

    def stop(self) -> None:
        """End it; what it has finished is kept."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
