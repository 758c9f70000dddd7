"""Running experiments, and finding again those that are done."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numba
import numpy as np
from tqdm import tqdm

from experiments.experiment import Experiment, Outcome

_ROOT = Path(__file__).resolve().parents[1]
_DETERMINES = ("llmsched_env", "baselines", "experiments")  # folders of sources and data


def run_all(experiments: Iterable[Experiment], folder: Path, progress: bool = True) -> dict[str, Outcome]:
    """Run experiments one after the other; the outcomes by name.

    Each outcome is kept in `folder/outcomes` under a digest of all sources and data, so an interrupted reproduction
    goes on where it stopped, and nothing old is taken for new.
    """
    experiments = list(experiments)
    outcomes = {}
    with tqdm(experiments, unit="experiment", dynamic_ncols=True, disable=not progress) as bar:
        for experiment in bar:
            bar.set_description(experiment.name)
            path = folder / "outcomes" / f"{experiment.name}_{_digest()}.json"
            if not path.exists():
                experiment.run().save(path)
            outcomes[experiment.name] = Outcome.from_file(path)
    return outcomes


def versions() -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "sources": _digest(),
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
    }


@cache
def _digest() -> str:
    digest = hashlib.sha256(f"{np.__version__} {numba.__version__}".encode())
    for folder in _DETERMINES:
        for path in sorted((_ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".json"):
                digest.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
