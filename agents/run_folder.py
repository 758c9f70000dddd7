"""The folder of a training, which says what is in it: config, seeds, versions, commit."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from agents.config import Training
from llmsched_env.evaluation.cases import TEST_SEEDS, TRAINING_SEEDS, TUNING_SEEDS
from llmsched_env.evaluation.run_cache import commit
from llmsched_env.files import read_object, write_json

CONFIG = "config.json"
_LOCK = ".lock"
MAY_CHANGE = ("steps", "minutes", "seeds")
"""Fields of a config that may be others when a training goes on."""
_PACKAGES = ("llmsched_env", "numpy", "numba", "gymnasium", "stable_baselines3", "sb3_contrib", "torch")


def keep_config(folder: Path, config: Training, first: Mapping[str, Any] | None = None) -> None:
    """Write the config of a training to its folder, which is made if need be, at once or not at all.

    Args:
        folder: of the training.
        config: what is trained.
        first: more that must be the same when the training goes on.

    Raises:
        ValueError: if another training is in the folder, or one without a config.
    """
    path = folder / CONFIG
    asked = json.loads(json.dumps({**asdict(config), **(first or {})}))
    about: dict[str, Any] = {"versions": _versions(), "commit": commit()}
    if path.exists():
        record = _record(path)
        for name, kept, new in _differences(record["training"], asked):
            if name not in MAY_CHANGE:
                raise ValueError(
                    f"there is another training in {folder}: {name} must be {kept!r} to go on with it, got {new!r}; "
                    "choose another folder (--out on the command line)"
                )
        about = {name: record.get(name, value) for name, value in about.items()}
    elif any(folder.glob("last.*")) or any(folder.glob("best.*")):
        raise ValueError(
            f"there is a training in {folder} without {CONFIG}, so it might be another one; "
            "choose another folder (--out on the command line)"
        )
    seeds = {"training": TRAINING_SEEDS, "tuning": TUNING_SEEDS, "test": TEST_SEEDS}
    write_json(path, {"training": asked, "first_seeds": seeds, **about}, indent=1)


def hold(folder: Path) -> None:
    """Keep other processes from training in a folder, which is made if need be, as long as this one lives.

    Raises:
        ValueError: if another process trains in it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        return
    if folder.resolve() in _held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / _LOCK).open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        process = file.read().strip()
        file.close()
        raise ValueError(
            f"another training runs in {folder} (process {process}); wait for it, end it, or choose another folder "
            "(--out on the command line)"
        ) from None
    except OSError:  # a file system without locks
        file.close()
        return
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _held[folder.resolve()] = file


_held: dict[Path, IO[str]] = {}  # a lock is given up when its file is closed


def read_config(folder: Path) -> Training:
    """The config of the training in a folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not one that this version wrote.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"there is no training in {folder}: it has no {CONFIG}")
    record = _record(path)["training"]
    names = [field.name for field in fields(Training)]
    if missing := sorted({*names} - record.keys()):
        raise ValueError(f"{path} must be that of a training by this version, but lacks {', '.join(missing)}")
    return Training(**{name: _tuples(record[name]) for name in names})


def latest(runs: Path) -> Path:
    """The folder in `runs` whose training began or went on last.

    Raises:
        FileNotFoundError: if there is none.
    """
    found = [path for path in runs.glob(f"*/{CONFIG}") if "training" in read_object(path)]
    if not found:
        raise FileNotFoundError(f"there is no training to resume in {runs.resolve()}")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def _record(path: Path) -> dict[str, Any]:
    record = read_object(path)
    if not isinstance(record.get("training"), dict):
        raise ValueError(f"{path} must be that of a training by this version, got none under 'training'")
    return record


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _differences(kept: Any, asked: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(name, value that was kept, value asked for) wherever two JSON values differ."""
    if isinstance(kept, dict) and isinstance(asked, dict):
        for key in kept | asked:
            yield from _differences(kept.get(key), asked.get(key), f"{name}.{key}" if name else key)
    elif isinstance(kept, list) and isinstance(asked, list) and len(kept) == len(asked):
        for k, pair in enumerate(zip(kept, asked, strict=True)):
            yield from _differences(*pair, f"{name}[{k}]")
    elif kept != asked:
        yield name, kept, asked


def _tuples(value: Any) -> Any:
    """JSON knows no tuples."""
    if isinstance(value, dict):
        return {name: _tuples(own) for name, own in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
