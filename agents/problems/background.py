"""The opponents of a training, tuned by a second process while the agent learns.

Training takes one core. Another one compiles and tunes the baselines meanwhile, into the folder of the training.
Whoever needs them then reads them there, and computes what is not there yet.

    python -m agents.problems.background FOLDER WORKPLACE
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

LOG = "tuning.log"
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
                [sys.executable, "-m", __name__, str(folder.resolve()), str(workplace.resolve())],
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


def _end_with_parent() -> None:
    """End this process soon after the training has ended, even if it was killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(folder: Path, workplace: Path) -> None:
    """Tune the opponents of the training in a folder."""
    _end_with_parent()
    from agents.problems.engine import EngineProblem
    from agents.run_folder import read_config

    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[1:] or cores)  # the first is the agent's
    problem = EngineProblem(read_config(folder), lambda line: print(line, flush=True))
    problem.workplace = workplace
    problem.prepare_opponents()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
