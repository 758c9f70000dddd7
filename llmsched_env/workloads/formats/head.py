"""How a file begins, which is all that recognising its format needs."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmsched_env.files import read_object

_FIRST = 1 << 26  # characters of the first line that are looked at


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a trace.

    Attributes:
        path: file or folder.
        titles: cells of the first line, unless the file holds JSON.
        row: the JSON object on the first line of a file of JSON lines, or None.
        document: the JSON object that is the whole file, or None.
    """

    path: Path
    titles: list[str] = field(default_factory=list)
    row: dict[str, Any] | None = None
    document: dict[str, Any] | None = None


def head_of(path: Path) -> Head:
    """Look at a file or folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it begins like JSON and is not.
    """
    if path.is_dir():
        return Head(path)
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        first = file.readline(_FIRST).strip()
        if first.startswith(("{", "[")):
            return _json_head(path, first, next((line for line in file if line.strip()), ""))
    try:
        return Head(path, [title.strip() for title in next(csv.reader([first]), [])])
    except csv.Error as error:
        raise ValueError(f"{path}, line 1 must be CSV text: {error}") from None


def _json_head(path: Path, first: str, second: str) -> Head:
    row, following = _object(first), _object(second)
    if row is not None and second:
        return Head(path, row=row)
    if following is not None:  # JSON lines of which the first is malformed, as reading them will say
        return Head(path, row=following)
    return Head(path, row=row, document=read_object(path))


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object in a line, or None if there is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
