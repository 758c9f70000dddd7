"""Request traces from files: Azure's public traces as they are, and a plain CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from llmsched_env.validation import did_you_mean
from llmsched_env.workloads.table import COLUMNS, ColumnError, RequestTable
from llmsched_env.workloads.workload import Workload

_STAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf|nan", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


def load_trace(path: str | Path) -> Workload:
    """Read a request trace; its header tells the format.

    - Azure LLM inference traces of 2023 and 2024 (`TIMESTAMP,ContextTokens,GeneratedTokens`, see
      https://github.com/Azure/AzurePublicDataset): arrivals are counted from the first row.
    - Plain CSV: `arrival,prompt_tokens,output_tokens` in seconds and tokens, in any order, and any of `client`,
      `klass`, `priority`, `session`, `predicted_output`, `ttft_slo`, `tpot_slo`, where an empty cell means the default.

    Args:
        path: the file; its stem becomes the workload's name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, has another header, or a cell that is malformed or not allowed; the message names
            the file, the line, the column, the value and what is allowed.
    """
    path = Path(path)
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.reader(file)
        try:
            header = [name.strip() for name in next(rows, [])]
            trace_format = _recognised(path, header)
            lines, cells = _read_cells(path, rows, len(header))
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num} must be CSV text: {error}") from None
    if not lines:
        raise ValueError(f"{path} must hold at least one request after its header, got none")

    columns = {}
    for title, column in zip(header, zip(*cells, strict=True), strict=True):
        parse = trace_format.parsers[title]
        values = []
        for line, cell in zip(lines, column, strict=True):
            try:
                values.append(parse(cell.strip()))
            except ValueError as error:
                raise ValueError(f"{path}, line {line}, column {title} must be {error}, got {cell!r}") from None
        columns[trace_format.names[title]] = values
    if trace_format is _AZURE:
        first = columns["arrival"][0]
        columns["arrival"] = [(stamp - first) / 1e9 for stamp in columns["arrival"]]

    try:
        table = RequestTable.from_columns(**columns)
    except ColumnError as error:
        title = next(title for title in header if trace_format.names[title] == error.column)
        where = f"{path}, line {lines[error.index]}, column {title}"
        cell = cells[error.index][header.index(title)]
        raise ValueError(f"{where} {error.problem}; the cell is {cell!r}") from None
    return Workload.from_table(table, name=path.stem)


class _Format(NamedTuple):
    names: dict[str, str]  # title in the file -> column of RequestTable
    parsers: dict[str, Callable[[str], float]]
    required: tuple[str, ...]


def _nanoseconds(cell: str) -> int:
    """Parse a time stamp without loss; fractions of a second may have up to nine digits, or be absent."""
    match = _STAMP.fullmatch(cell)
    if not match:
        raise ValueError("a time like 2023-11-16 18:17:03.9799600 (optionally with an offset such as +00:00)")
    whole, fraction, offset = match.groups()
    return _epoch_seconds(whole, offset) * 10**9 + int((fraction or "").ljust(9, "0"))


@lru_cache(maxsize=4)
def _epoch_seconds(whole: str, offset: str | None) -> int:
    try:
        return int(datetime.fromisoformat(whole + (offset or "+00:00").replace("Z", "+00:00")).timestamp())
    except ValueError:
        raise ValueError("an existing date and time") from None


def _plain_parser(name: str) -> Callable[[str], float]:
    column, optional = COLUMNS[name], name not in _REQUIRED
    pattern, convert = (_INTEGER, int) if isinstance(column.dtype(0).item(), int) else (_NUMBER, float)

    def parse(cell: str) -> float:
        if not cell and optional:
            return column.default
        if not pattern.fullmatch(cell):
            raise ValueError(column.allowed)
        return convert(cell)

    return parse


_REQUIRED = ("arrival", "prompt_tokens", "output_tokens")
_PLAIN = _Format({name: name for name in COLUMNS}, {name: _plain_parser(name) for name in COLUMNS}, _REQUIRED)
_AZURE = _Format(
    {"TIMESTAMP": "arrival", "ContextTokens": "prompt_tokens", "GeneratedTokens": "output_tokens"},
    {
        "TIMESTAMP": _nanoseconds,
        "ContextTokens": _plain_parser("prompt_tokens"),
        "GeneratedTokens": _plain_parser("output_tokens"),
    },
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
)


def _recognised(path: Path, header: list[str]) -> _Format:
    """Return the format whose columns the header shares, or explain what is wrong with the header."""
    expected = f"columns {','.join(_AZURE.required)} (Azure) or {','.join(_PLAIN.required)} with optional further ones"
    trace_format = max((_AZURE, _PLAIN), key=lambda known: len(set(header) & set(known.names)))
    if not set(header) & set(trace_format.names):
        raise ValueError(f"{path}, line 1 must be a header with {expected}, got {','.join(header) or 'nothing'}")
    missing = [title for title in trace_format.required if title not in header]
    if missing:
        raise ValueError(f"{path}, line 1 lacks column {', '.join(missing)}; a header needs {expected}")
    for title in header:
        if title not in trace_format.names:
            raise ValueError(f"{path}, line 1 has unknown column {title!r}; {did_you_mean(title, trace_format.names)}")
        if header.count(title) > 1:
            raise ValueError(f"{path}, line 1 must name each column once, got {title!r} {header.count(title)} times")
    return trace_format


def _read_cells(path: Path, rows: Iterator[list[str]], width: int) -> tuple[list[int], list[list[str]]]:
    """Return the line numbers and cells of all rows that are not blank."""
    lines, cells = [], []
    for row in rows:
        if not row:
            continue
        if len(row) != width:
            problem = f"must have {width} cells like the header, got {len(row)}: {','.join(row)}"
            raise ValueError(f"{path}, line {rows.line_num} {problem}")
        lines.append(rows.line_num)
        cells.append(row)
    return lines, cells
