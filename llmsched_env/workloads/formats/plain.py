"""Our own plain formats: CSV with a header, or JSON lines, both with the names of `RequestTable`'s columns.

`arrival`, `prompt_tokens` and `output_tokens` must be there; of any other column an empty cell, an absent key or null
means the default. Arrivals are taken as written and must not decrease.
"""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np

from llmsched_env.simulator.request_table import COLUMNS, ColumnError, RequestTable
from llmsched_env.validation import did_you_mean
from llmsched_env.workloads.formats.cells import cell_of
from llmsched_env.workloads.formats.csv_blocks import read_csv
from llmsched_env.workloads.formats.format import CsvHeader, TraceFormat
from llmsched_env.workloads.formats.head import Head
from llmsched_env.workloads.formats.json_rows import Row, number, parsed_lines
from llmsched_env.workloads.formats.rows import CellError, RowLog
from llmsched_env.workloads.sources import FixedRequests

_REQUIRED = ("arrival", "prompt_tokens", "output_tokens")
_CODES, _CONVERTERS = {np.int64: "q", np.float64: "d"}, {np.int64: int, np.float64: float}
_CELLS = {name: cell_of(name, optional=name not in _REQUIRED) for name in COLUMNS}


def _read_csv(head: Head, log: RowLog) -> FixedRequests:
    cells = {title: _CELLS[title] for title in head.titles}
    columns = read_csv(head.path, head.titles, cells, log, time="arrival")
    return _requests(head, columns)


def _read_jsonl(head: Head, log: RowLog) -> FixedRequests:
    latest = -math.inf

    def parse(row: Row) -> dict[str, float]:
        nonlocal latest
        given = {name: value for name, value in row.items() if value is not None}
        values = {name: number(given, name, COLUMNS[name]) for name in _REQUIRED}
        for name in given:
            if name not in COLUMNS:
                raise CellError(name, f"is unknown; {did_you_mean(name, COLUMNS)}")
            values[name] = number(given, name, COLUMNS[name])
        if values["arrival"] < latest:
            raise CellError("arrival", f"must be >= the arrival before it ({latest} s), got {values['arrival']}")
        latest = values["arrival"]
        return values

    rows, columns = 0, {}
    for values in parsed_lines(head.path, log, parse):
        for name in values:
            if name not in columns:  # rows before had the default
                columns[name] = array(_CODES[COLUMNS[name].dtype], [COLUMNS[name].default]) * rows
        for name, column in columns.items():
            column.append(_CONVERTERS[COLUMNS[name].dtype](values.get(name, COLUMNS[name].default)))
        rows += 1
    if not rows:
        raise ValueError(f"{head.path} must hold at least one request, got none")
    return _requests(head, {name: np.frombuffer(column.tobytes(), column.typecode) for name, column in columns.items()})


def _requests(head: Head, columns: dict[str, Any]) -> FixedRequests:
    try:
        return FixedRequests(RequestTable.from_columns(**columns))
    except ColumnError as error:  # of columns that refer to other rows
        where = "" if error.index is None else f", request {error.index} counted from 0"
        raise ValueError(f"{head.path}{where}, column {error.column} {error.problem}") from None


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
