"""How a file begins, which is all that recognising its format needs."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        more = any(line.strip() for line in file) if first.startswith(("{", "[")) else True
    if first.startswith(("{", "[")):
        return _json_head(path, first, more)
    try:
        return Head(path, [title.strip() for title in next(csv.reader([first]), [])])
    except csv.Error as error:
        raise ValueError(f"{path}, line 1 must be CSV text: {error}") from None


def _json_head(path: Path, first: str, more: bool) -> Head:
    try:
        row = json.loads(first)
    except ValueError:
        row = None
    if row is None or not more:
        try:
            document = json.loads(path.read_text(encoding="utf-8-sig", errors="replace"))
        except json.JSONDecodeError as error:
            if row is None and more and _second_line_is_json(path):
                raise ValueError(f"{path}, line 1 must be a JSON object, got {first[:80]!r}") from None
            where = f"{path}, line {error.lineno}, column {error.colno}"
            raise ValueError(f"{where} must be JSON: {error.msg}") from None
    else:
        document = None
    if not isinstance(row if document is None else document, dict):
        raise ValueError(f"{path}, line 1 must begin a JSON object, got {first[:80]!r}")
    return Head(path, row=row if isinstance(row, dict) else None, document=document)


def _second_line_is_json(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        file.readline()
        try:
            return isinstance(json.loads(file.readline()), dict)
        except ValueError:
            return False
