"""Trace formats, and the beginning of a file, by which its format is recognised."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmsched_env.files import parse_json, read_json
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.validation import check_choice, check_integer, did_you_mean, shown
from llmsched_env.workloads.formats.clock import PER_SECOND
from llmsched_env.workloads.formats.json_reader import parsed_rows, read_lines
from llmsched_env.workloads.formats.measured import MeasuredCall
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.sources import Source

_LISTED = 20
_FIRST = 1 << 26  # most characters read of the first line
_RUN = re.compile(r"(.+)#(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a trace, and what the caller says of it.

    Attributes:
        path: file or folder.
        titles: cells of the first line; empty if the file holds JSON.
        row: the JSON object on the first line of a file of JSON lines, or None.
        document: the JSON object that is the whole file, or the chosen run of it; None if there is none.
        items: the JSON array of objects that is the whole file, or None.
        run: number of the run that was asked for, from 1; None: none was.
        time_unit: unit of its times, "s", "ms", "us" or "ns"; None: to be recognised.
        block_tokens: tokens per block of `hash_ids`; None: to be recognised.
    """

    path: Path
    titles: list[str] = field(default_factory=list)
    row: dict[str, Any] | None = None
    document: dict[str, Any] | None = None
    items: list[dict[str, Any]] | None = None
    run: int | None = None
    time_unit: str | None = None
    block_tokens: int | None = None

    @property
    def name(self) -> str:
        """Name of what is in the file: its stem, with the number of the run."""
        return self.path.stem + (f"#{self.run}" if self.run is not None else "")

    @property
    def first(self) -> dict[str, Any]:
        """The first JSON object of the file, whether it is a line, an item or the document; empty if there is none."""
        return self.row or self.document or (self.items or [{}])[0]

    def rows(self, log: RowLog, parse: Callable[[dict[str, Any]], Any]) -> list[Any]:
        """What `parse` returns for each object, of JSON lines or of an array; None is left out.

        Raises:
            ValueError: a row is bad and `log` does not skip bad rows, or there is no request.
        """
        return (
            read_lines(self.path, log, parse) if self.items is None else parsed_rows(self.path, self.items, log, parse)
        )


def head_of(path: str | Path, time_unit: str | None = None, block_tokens: int | None = None) -> Head:
    """Read the beginning of a file or folder; "FILE#2" asks for the second run in a file.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it begins like JSON but is not, or an argument is not allowed.
    """
    if time_unit is not None:
        check_choice("time_unit", time_unit, PER_SECOND)
    if block_tokens is not None:
        check_integer("block_tokens", block_tokens, at_least=1, at_most=10**9, unit="tokens")
    path, run = Path(path), None
    if (numbered := _RUN.fullmatch(str(path))) and not path.exists():
        path, run = Path(numbered[1]), int(numbered[2])
    return replace(_head(path), run=run, time_unit=time_unit, block_tokens=block_tokens)


def _head(path: Path) -> Head:
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
    if following is not None and first[0] == "{":  # JSON lines with a malformed first one, which reading will report
        return Head(path, row=following)
    value = read_json(path)
    if isinstance(value, dict):
        return Head(path, row=row, document=value)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return Head(path, items=value)
    raise ValueError(f"{path} must be a JSON object, or an array of objects, got {shown(value)}")


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object in a line, None if it is not one."""
    try:
        value = parse_json(text, "")
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
        runs: function head -> the runs in the file, each as (document, short description); None: a file is one run.
        read_calls: function (head, log) -> the requests with the times that were measured; None: it holds none.
        takes: which of "time_unit" and "block_tokens" the caller may say; the others are documented, or absent.
    """

    name: str
    looks: str
    read: Callable[[Head, RowLog], Source]
    matches: Callable[[Head], bool] | None = None
    header: CsvHeader | None = None
    read_tasks: Callable[[Head, RowLog], TaskTable] | None = None
    last_resort: bool = False
    runs: Callable[[Head], list[tuple[dict[str, Any], str]]] | None = None
    read_calls: Callable[[Head, RowLog], list[MeasuredCall]] | None = None
    takes: tuple[str, ...] = ()

    def chosen(self, head: Head) -> Head:
        """The head with the run that was asked for, or the only one, as its document.

        Raises:
            ValueError: there are several and none was asked for, there is no such run, or something was said of the
                file that the format leaves no choice in.
        """
        for name in ("time_unit", "block_tokens"):
            if getattr(head, name) is not None and name not in self.takes:
                raise ValueError(f"{name} must be left out for {head.path}: {self.name} leaves no choice")
        if self.runs is None:
            if head.run is not None:
                raise ValueError(f"{head.path}#{head.run}: a file of {self.name} is one run; leave out #{head.run}")
            return head
        runs = self.runs(head)
        if len(runs) > 1 and head.run is None:
            listed = "".join(f"\n  {head.path}#{k}: {about}" for k, (_, about) in enumerate(runs[:_LISTED], 1))
            more = f"\n  ... to {head.path}#{len(runs)}" if len(runs) > _LISTED else ""
            raise ValueError(f"{head.path}: {len(runs)} runs in this file; choose one with{listed}{more}")
        k = 1 if head.run is None else head.run
        if not 1 <= k <= len(runs):
            raise ValueError(f"{head.path}#{k}: the run must be one of 1 to {len(runs)}")
        return replace(head, document=runs[k - 1][0])
