"""JSON files: read with errors that point at the place, and written at once or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read_json(path: str | Path) -> Any:
    """Read a file that is one JSON value.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON; naming file, line and column.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig", errors="replace"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}, column {error.colno} must be JSON: {error.msg}") from None


def read_object(path: str | Path) -> dict[str, Any]:
    """Read a file that is one JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or another value.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path} must be a JSON object, got {repr(value)[:80]}")
    return value


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write a file, and the folders above it, at once or not at all: who is interrupted keeps the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(value, indent=indent), encoding="utf-8")
    partial.replace(path)
