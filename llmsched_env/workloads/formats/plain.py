"""Our own plain formats: CSV with a header, or JSON lines, both with the names of `RequestTable`'s columns.

`arrival`, `prompt_tokens` and `output_tokens` must be there; of any other column an empty cell, an absent key or null
means the default. Arrivals are taken as written and must not decrease.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llmsched_env.validation import did_you_mean
from llmsched_env.workloads.formats.cells import cell_of
from llmsched_env.workloads.formats.csv_blocks import read_csv
from llmsched_env.workloads.formats.format import CsvHeader, TraceFormat
from llmsched_env.workloads.formats.head import Head
from llmsched_env.workloads.formats.json_rows import Row, number, read_lines
from llmsched_env.workloads.formats.rows import CellError, RowLog
from llmsched_env.workloads.sources import FixedRequests
from llmsched_env.workloads.table import COLUMNS, ColumnError, RequestTable

_REQUIRED = ("arrival", "prompt_tokens", "output_tokens")
_CELLS = {name: cell_of(name, optional=name not in _REQUIRED) for name in COLUMNS}


def _read_csv(head: Head, log: RowLog) -> FixedRequests:
    cells = {title: _CELLS[title] for title in head.titles}
    columns = read_csv(head.path, head.titles, cells, log, time="arrival")
    return _requests(head, columns)


def _read_jsonl(head: Head, log: RowLog) -> FixedRequests:
    latest = -np.inf

    def parse(row: Row) -> list[float]:
        nonlocal latest
        values = [_value(row, name) for name in COLUMNS]
        unknown = next((name for name in row if name not in COLUMNS), None)
        if unknown is not None:
            raise CellError(unknown, f"is unknown; {did_you_mean(unknown, COLUMNS)}")
        if values[0] < latest:
            raise CellError("arrival", f"must be >= the arrival before it ({latest} s), got {values[0]}")
        latest = values[0]
        return values

    rows = read_lines(head.path, log, parse)
    arrays = {
        name: np.array(column, COLUMNS[name].dtype)
        for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True)
    }
    return _requests(head, arrays)


def _requests(head: Head, columns: dict[str, Any]) -> FixedRequests:
    try:
        return FixedRequests(RequestTable.from_columns(**columns))
    except ColumnError as error:  # of columns that refer to other rows
        where = "" if error.index is None else f", request {error.index} counted from 0"
        raise ValueError(f"{head.path}{where}, column {error.column} {error.problem}") from None


def _value(row: Row, name: str) -> float:
    column = COLUMNS[name]
    if row.get(name) is None and name not in _REQUIRED:
        return column.default
    return number(row, name, column)


PLAIN_CSV = TraceFormat(
    "plain CSV",
    "arrival,prompt_tokens,output_tokens with optional further ones",
    _read_csv,
    header=CsvHeader(_REQUIRED, tuple(COLUMNS), True),
)
PLAIN_JSONL = TraceFormat(
    "plain JSON lines",
    "JSON objects with arrival, prompt_tokens and output_tokens",
    _read_jsonl,
    lambda head: head.row is not None and "arrival" in head.row and "prompt_tokens" in head.row,
)
