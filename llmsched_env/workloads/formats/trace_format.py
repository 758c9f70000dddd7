"""Trace formats, and the beginning of a file, by which its format is recognised."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmsched_env.files import read_object
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.validation import did_you_mean
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.sources import Source

_FIRST = 1 << 26  # most characters read of the first line


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a trace.

    Attributes:
        path: file or folder.
        titles: cells of the first line; empty if the file holds JSON.
        row: the JSON object on the first line of a file of JSON lines, or None.
        document: the JSON object that is the whole file, or None.
    """

    path: Path
    titles: list[str] = field(default_factory=list)
    row: dict[str, Any] | None = None
    document: dict[str, Any] | None = None


def head_of(path: Path) -> Head:
    """Read the beginning of a file or folder.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it begins like JSON but is not.
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
    if following is not None:  # JSON lines with a malformed first one, which reading will report
        return Head(path, row=following)
    return Head(path, row=row, document=read_object(path))


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object in a line, None if it is not one."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class CsvHeader:
    """The header line of a CSV format.

    Attributes:
        required: titles that must be present.
        known: all titles that it may have.
        strict: whether an unknown title is an error.
    """

    required: tuple[str, ...]
    known: tuple[str, ...]
    strict: bool = False

    def share(self, titles: list[str]) -> int:
        """Number of titles that it knows."""
        return len(set(titles) & set(self.known))

    def check(self, path: Path, titles: list[str]) -> None:
        """Raise `ValueError` if a title is missing, appears twice, or, in a strict format, is unknown."""
        needs = f"a header needs columns {','.join(self.required)}"
        missing = [title for title in self.required if title not in titles]
        if missing:
            raise ValueError(f"{path}, line 1 lacks column {', '.join(missing)}; {needs}")
        for title in titles:
            if self.strict and title not in self.known:
                raise ValueError(f"{path}, line 1 has unknown column {title!r}; {did_you_mean(title, self.known)}")
            if titles.count(title) > 1:
                raise ValueError(
                    f"{path}, line 1 must name each column once, got {title!r} {titles.count(title)} times"
                )


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """A format of files or folders, recognised by its content: by a test of its beginning, or by a CSV header.

    Attributes:
        name: its name in messages.
        looks: short description for messages, such as its columns.
        read: function (head, log) -> the requests.
        matches: function head -> whether the file has this format; None for a CSV with a header.
        header: the header of a CSV; None for other files.
        read_tasks: function (head, log) -> the tasks of its sessions; None if every request is a task of its own.
        last_resort: whether it is tried after all others, because it also matches some of their files.
    """

    name: str
    looks: str
    read: Callable[[Head, RowLog], Source]
    matches: Callable[[Head], bool] | None = None
    header: CsvHeader | None = None
    read_tasks: Callable[[Head, RowLog], TaskTable] | None = None
    last_resort: bool = False
