"""What a training keeps in its folder of how it was asked for, so that only the same one goes on there."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmsched_env.json_files import read_object, write_json

CONFIG = "config.json"


def keep_config(folder: Path, config: Mapping[str, Any], free: Collection[str] = ()) -> None:
    """Write the configuration of a training to its folder, which is made if need be, at once or not at all.

    Args:
        folder: of the training.
        config: numbers, texts, and tuples and mappings of them.
        free: names of what may change when the training goes on.

    Raises:
        ValueError: if another training is in the folder, or one without a configuration.
    """
    asked, path = json.loads(json.dumps(config, default=lambda number: number.item())), folder / CONFIG  # of NumPy
    if path.exists():
        for name, kept, new in _differences(read_object(path), asked):
            if name not in free:
                raise ValueError(
                    f"there is another training in {folder}: {name} must be {kept!r} to go on with it, got {new!r}; "
                    "choose another folder (--out on the command line)"
                )
    elif any(folder.glob("*.npz")):
        raise ValueError(
            f"there is a training in {folder} without {CONFIG}, so it might be another one; "
            "choose another folder (--out on the command line)"
        )
    write_json(path, asked, indent=1)


def interrupted(folder: Path) -> str:
    """What to say when a training ends by Ctrl-C that goes on by itself in its folder."""
    return f"\nInterrupted; the same command goes on from the last state kept in {folder}."


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
