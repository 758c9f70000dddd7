"""Run experiments, each once: outcomes are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numba
import numpy as np
from tqdm import tqdm

from experiments.experiment import Experiment, Outcome
from llmsched_env.evaluation import run_cache
from llmsched_env.files import cached

_ROOT = Path(__file__).resolve().parents[1]
_DETERMINES = ("llmsched_env", "baselines", "experiments")  # folders of sources and data


def run_all(experiments: Iterable[Experiment], folder: Path, progress: bool = True) -> dict[str, Outcome]:
    """Run experiments one after the other; the outcomes by name.

    Each outcome is kept in `folder/outcomes` under a digest of all sources and data, so an interrupted reproduction
    continues where it stopped, and outcomes of other sources are not reused.
    """
    experiments = list(experiments)
    outcomes = {}
    with tqdm(experiments, unit="experiment", dynamic_ncols=True, disable=None if progress else True) as bar:
        for experiment in bar:
            bar.set_description(experiment.name)
            path = folder / "outcomes" / f"{experiment.name}_{_digest()}.json"
            outcomes[experiment.name] = cached(path, Outcome.from_file, experiment.run, Outcome.save)
    return outcomes


def versions() -> dict[str, str]:
    """Versions of everything that the numbers depend on."""
    return run_cache.versions() | {"sources": _digest()}


@cache
def _digest() -> str:
    digest = hashlib.sha256(f"{np.__version__} {numba.__version__}".encode())
    for folder in _DETERMINES:
        for path in sorted((_ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".json"):
                digest.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
