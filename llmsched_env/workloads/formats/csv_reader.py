"""Reads CSV files block by block into columns of numbers, so that memory holds the numbers and not the text."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from llmsched_env.tables.request_table import COLUMNS, ColumnSpec
from llmsched_env.workloads.formats import csv_parser
from llmsched_env.workloads.formats.clock import PER_SECOND, unix_unit
from llmsched_env.workloads.formats.row_log import RowLog

_YEARS = range(csv_parser.FIRST_YEAR, csv_parser.LAST_YEAR + 1)
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf|nan", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CsvCell:
    """How the cells of one column of a CSV file are read.

    Attributes:
        kind: one of the kinds of cells of `csv_parser`.
        column: bounds and default of integers and numbers; None for other kinds.
        optional: whether an empty cell means the default.
    """

    kind: int
    column: ColumnSpec | None = None
    optional: bool = False

    @property
    def parse(self) -> Callable[[str], float]:
        """Slow but complete parser of one cell; raises `ValueError` with what was expected."""
        return {
            csv_parser.SKIP: lambda cell: 0,
            csv_parser.INTEGER: self._number,
            csv_parser.NUMBER: self._number,
            csv_parser.STAMP: nanoseconds,
            csv_parser.LABEL: label,
        }[self.kind]

    def _number(self, cell: str) -> float:
        assert self.column is not None
        if not cell and self.optional:
            return self.column.default
        is_integer = self.kind == csv_parser.INTEGER
        if not (_INTEGER if is_integer else _NUMBER).fullmatch(cell):
            raise ValueError(self.column.allowed)
        return int(cell) if is_integer else float(cell)


SKIPPED = CsvCell(csv_parser.SKIP)
TIME_STAMP = CsvCell(csv_parser.STAMP)
LABEL = CsvCell(csv_parser.LABEL)


def cell_of(column: str, optional: bool = False, **changes: Any) -> CsvCell:
    """Cells that hold a column of `RequestTable`; `changes` replace fields of its `ColumnSpec`."""
    kind = csv_parser.INTEGER if isinstance(COLUMNS[column].dtype(0).item(), int) else csv_parser.NUMBER
    return CsvCell(kind, COLUMNS[column]._replace(**changes), optional)


def nanoseconds(cell: str) -> int:
    """Parse a time stamp or a Unix time exactly; fractions of a second may have up to nine digits or be absent."""
    match = _STAMP.fullmatch(cell)
    if not match:
        return _unix_nanoseconds(cell)
    whole, fraction, offset = match.groups()
    if int(whole[:4]) not in _YEARS:
        raise ValueError(f"a time in the years {_YEARS[0]} to {_YEARS[-1]}")
    return _epoch_seconds(whole, offset) * 10**9 + int((fraction or "").ljust(9, "0"))


def _unix_nanoseconds(cell: str) -> int:
    unit = unix_unit(float(cell)) if _NUMBER.fullmatch(cell) else None
    if unit is None:
        raise ValueError("a time like 2023-11-16 18:17:03.9799600 (optionally with an offset such as +00:00)")
    return int(Decimal(cell) * int(1e9 / PER_SECOND[unit]))


def label(cell: str) -> int:
    """64-bit hash (FNV-1a) of the text, the same as that of `csv_parser`."""
    digest = int(csv_parser.FNV_BASIS)
    for byte in cell.encode():
        digest = (digest ^ byte) * int(csv_parser.FNV_PRIME) % 2**64
    return digest - 2**64 if digest >= 2**63 else digest


@lru_cache(maxsize=4)
def _epoch_seconds(whole: str, offset: str | None) -> int:
    try:
        return int(datetime.fromisoformat(whole + (offset or "+00:00").replace("Z", "+00:00")).timestamp())
    except ValueError:
        raise ValueError("an existing date and time") from None


_BLOCK = 1 << 22  # bytes
_LONGEST_ROW = 1 << 28  # bytes
_ROWS = 1 << 17

Columns = dict[str, np.ndarray]


def read_csv(
    path: Path,
    header: list[str],
    cells: dict[str, CsvCell],
    log: RowLog,
    *,
    time: str | None = None,
    failed: Callable[[Columns], np.ndarray] | None = None,
) -> Columns:
    """Read the rows below the header of a CSV file.

    Args:
        path: the file.
        header: titles of all its columns.
        cells: how to read the wanted columns, by title.
        log: receives the rows that are left out.
        time: title of the column that must not decrease; None if rows may be in any order.
        failed: function of the columns of a block -> bool[n], rows of failed requests, which are left out.

    Returns:
        Read-only arrays by title: i8 for integers and labels (hashes), f8 for numbers, f8 seconds since the first row
        for time stamps.

    Raises:
        ValueError: a row is bad and `log` does not skip bad rows, or there is no row; the message names file, line,
            column, value and what is expected.
    """
    reader = _Reader(path, header, cells, log)
    kept: dict[str, list[np.ndarray]] = {title: [] for title, cell in cells.items() if cell.kind != csv_parser.SKIP}
    latest = -np.inf
    for columns in reader.blocks():
        if failed is not None:
            out = failed(columns)
            log.failed(int(np.count_nonzero(out)))
            reader.drop(columns, out)
        reader.check_bounds(columns)
        if time is not None and len(columns[time]):
            latest = reader.check_order(columns, time, latest)
        reader.report()
        for title, parts in kept.items():
            parts.append(columns[title])
    if not any(len(part) for parts in kept.values() for part in parts):
        raise ValueError(f"{path} must hold at least one request after its header, got none")
    joined = {}
    for title, parts in kept.items():
        joined[title] = np.concatenate(parts)
        joined[title].flags.writeable = False
        parts.clear()  # so that only one column at a time is in memory twice
    return joined


class _Reader:
    """The blocks of one file; `self.rows` locates the rows of the current block in `self.text`."""

    def __init__(self, path: Path, header: list[str], cells: dict[str, CsvCell], log: RowLog) -> None:
        self.path, self.titles, self.log = path, header, log
        self.cells = [cells.get(title, CsvCell(csv_parser.SKIP)) for title in header]
        self.parsers = [cell.parse for cell in self.cells]
        self.first_stamp: dict[str, int] = {}
        self.text = b""
        self.rows = np.empty((0, 4), np.int64)
        self.problems: list[tuple[int, str, str]] = []
        self.line = 1  # lines before the current block; at first the header

    def blocks(self) -> Iterator[Columns]:
        """The columns of each block, in order."""
        kinds = np.array([cell.kind for cell in self.cells])
        optional = np.array([cell.optional for cell in self.cells], np.uint8)
        defaults = np.array([cell.column.default if cell.column else 0.0 for cell in self.cells], np.float64)
        ints = np.empty((_ROWS, len(kinds)), np.int64)
        floats = np.empty((_ROWS, len(kinds)))
        rows = np.empty((_ROWS, 4), np.int64)
        hard = np.empty((_ROWS, 4), np.int64)
        for text in _whole_lines(self.path):
            data, used = np.frombuffer(text, np.uint8), 0
            while used < len(data):
                self.text = text[used:] if used else text
                arguments = (kinds, optional, ints, floats, defaults, rows, hard)
                n, m, lines, bytes_used = csv_parser.parse_rows(data[used:], *arguments)
                floats[hard[:m, 0], hard[:m, 1]] = [float(self.text[a:b]) for a, b in hard[:m, 2:].tolist()]
                self.rows = rows[:n]
                keep = np.ones(n, bool)
                for i in np.flatnonzero(rows[:n, 0] == csv_parser.ODD).tolist():
                    keep[i] = self._parse_odd(i, ints, floats)
                yield self._columns(ints[:n], floats[:n], keep)
                self.line += lines
                used += bytes_used

    def _parse_odd(self, i: int, ints: np.ndarray, floats: np.ndarray) -> bool:
        """Parse row `i` in Python; return whether it is good."""
        _, begin, end, _ = self.rows[i]
        line = self.text[begin:end].decode("utf-8", "replace")
        try:
            row = next(csv.reader([line]))
        except csv.Error as error:
            self._bad(i, "", f"must be CSV text: {error}")
            return False
        if len(row) != len(self.titles):
            self._bad(i, "", f"must have {len(self.titles)} cells like the header, got {len(row)}: {','.join(row)}")
            return False
        for c, (cell, parse) in enumerate(zip(row, self.parsers, strict=True)):
            try:
                value = parse(cell.strip())
            except ValueError as error:
                self._bad(i, self.titles[c], f"must be {error}, got {cell!r}")
                return False
            if self.cells[c].kind == csv_parser.NUMBER:
                floats[i, c] = value
            else:
                ints[i, c] = value
        return True

    def _columns(self, ints: np.ndarray, floats: np.ndarray, keep: np.ndarray) -> Columns:
        columns = {}
        self.rows = self.rows[keep]
        for c, (title, cell) in enumerate(zip(self.titles, self.cells, strict=True)):
            if cell.kind == csv_parser.STAMP:
                stamps = ints[keep, c]
                if len(stamps):
                    first = self.first_stamp.setdefault(title, int(stamps[0]))
                    columns[title] = (stamps - first) / 1e9
                else:
                    columns[title] = np.empty(0)
            elif cell.kind != csv_parser.SKIP:
                columns[title] = (floats if cell.kind == csv_parser.NUMBER else ints)[keep, c]
        return columns

    def drop(self, columns: Columns, out: np.ndarray) -> None:
        """Remove rows from the block."""
        if out.any():
            self.rows = self.rows[~out]
            for title in columns:
                columns[title] = columns[title][~out]

    def check_bounds(self, columns: Columns) -> None:
        """Report and drop rows with values outside the bounds of their column."""
        for title, cell in zip(self.titles, self.cells, strict=True):
            if cell.column is None:
                continue
            values = columns[title]
            bad = cell.column.bad(values)
            for i in np.flatnonzero(bad).tolist():
                self._bad_value(i, title, f"must be {cell.column.allowed}, got {values[i]}")
            self.drop(columns, bad)

    def check_order(self, columns: Columns, time: str, latest: float) -> float:
        """Report and drop rows that are earlier than a row before them; return the latest time."""
        times = columns[time]
        bad = np.zeros(len(times), bool)
        csv_parser.mark_backward(times, latest, bad)
        for i in np.flatnonzero(bad).tolist():
            before = max(latest, float(np.max(times[:i][~bad[:i]], initial=-np.inf)))
            self._bad_value(i, time, f"must be >= the arrival before it ({before} s), got {times[i]}")
        self.drop(columns, bad)
        return float(columns[time][-1]) if len(columns[time]) else latest

    def _bad_value(self, i: int, title: str, problem: str) -> None:
        _, begin, end, _ = self.rows[i]
        cell = next(csv.reader([self.text[begin:end].decode("utf-8", "replace")]))[self.titles.index(title)]
        self._bad(i, title, f"{problem}; the cell is {cell!r}")

    def _bad(self, i: int, title: str, problem: str) -> None:
        self.problems.append((self.line + int(self.rows[i, 3]) + 1, title, problem))

    def report(self) -> None:
        """Report the bad rows of the block to the log, in order of the file."""
        for problem in sorted(self.problems):
            self.log.bad(self.path, *problem)
        self.problems.clear()


def _whole_lines(path: Path) -> Iterator[bytes]:
    """The file below its header, in pieces that end with a line feed."""
    with path.open("rb") as file:
        file.readline()
        rest = b""
        while block := file.read(_BLOCK):
            end = block.rfind(b"\n") + 1
            if not end:
                rest += block
                if len(rest) > _LONGEST_ROW:
                    raise ValueError(f"{path} must be lines of text, got a line of more than {_LONGEST_ROW} bytes")
                continue
            yield rest + block[:end]
            rest = block[end:]
        if rest:
            yield rest + b"\n"
