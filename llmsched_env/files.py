"""Files: JSON read with errors that name the place, and everything written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from llmsched_env.validation import shown

T = TypeVar("T")


def read_json(path: str | Path) -> Any:
    """Read a file that is one JSON value.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON; naming file, line and column.
    """
    return parse_json(Path(path).read_text(encoding="utf-8-sig", errors="replace"), str(path))


def parse_json(text: str, place: str) -> Any:
    """The JSON value in a text.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or holds an integer of thousands of digits; the message begins
            with `place`.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}, line {error.lineno}, column {error.colno} must be JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError(f"{place} must be JSON that is not nested so deeply") from None
    except ValueError as error:
        raise ValueError(f"{place} must be JSON: {error}") from None


def read_object(path: str | Path) -> dict[str, Any]:
    """Read a file that is one JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or another value.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path} must be a JSON object, got {shown(value)}")
    return value


def read_object_if_exists(path: str | Path) -> dict[str, Any]:
    """Read a file that is one JSON object; empty if there is no such file.

    Raises:
        ValueError: it is not JSON, or another value.
    """
    return read_object(path) if Path(path).exists() else {}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file atomically: an interrupted writer leaves the old file as it was.

    Folders above the file are created.

    Args:
        path: the file.

    Yields:
        The path to write to. It replaces the file when the block ends without an error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    yield partial
    partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file atomically."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=indent))


def cached(path: Path, read: Callable[[Path], T], compute: Callable[[], T], write: Callable[[T, Path], None]) -> T:
    """A result that is computed only once.

    Args:
        path: where the result is kept; its name must change with everything that determines the result.
        read: reads what `write` wrote.
        compute: computes the result if there is no file.
        write: writes it, atomically.
    """
    if path.exists():
        return read(path)
    result = compute()
    write(result, path)
    return result
