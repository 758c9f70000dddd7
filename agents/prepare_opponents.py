"""Tunes the opponents of a training that is under way; `agents.problems.background` starts it.

python -m agents.prepare_opponents FOLDER WORKPLACE
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from agents.problems.engine import EngineProblem
from agents.run_folder import read_config


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
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[1:] or cores)  # the first is the agent's
    problem = EngineProblem(read_config(folder), lambda line: print(line, flush=True))
    problem.workplace = workplace
    problem.prepare_opponents()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
