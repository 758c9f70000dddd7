"""The package's own formats: CSV with a header, or JSON lines, with the columns of `RequestTable`.

`arrival`, `prompt_tokens` and `output_tokens` are required. In other columns an empty cell, a missing key or null means
the default. Arrivals must not decrease. They are seconds and used as they are, unless they are Unix times or those of
another clock, which are counted from the first.
"""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np

from llmsched_env.tables.request_table import COLUMNS, ColumnError, RequestTable
from llmsched_env.validation import did_you_mean
from llmsched_env.workloads.formats.clock import run_times
from llmsched_env.workloads.formats.csv_reader import cell_of, read_csv
from llmsched_env.workloads.formats.json_reader import Row, number, parsed_lines
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_format import CsvHeader, Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests

_REQUIRED = ("arrival", "prompt_tokens", "output_tokens")
_CELLS = {name: cell_of(name, optional=name not in _REQUIRED) for name in COLUMNS}


def _read_csv(head: Head, log: RowLog) -> FixedRequests:
    cells = {title: _CELLS[title] for title in head.titles}
    columns = read_csv(head.path, head.titles, cells, log, time="arrival")
    return _requests(head, columns, log)


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

    rows = 0
    columns: dict[str, array[Any]] = {}
    for values in parsed_lines(head.path, log, parse):
        for name in values:
            if name not in columns:  # earlier rows had the default
                columns[name] = array("q" if _is_integer(name) else "d", [COLUMNS[name].default]) * rows
        for name, column in columns.items():
            value = values.get(name, COLUMNS[name].default)
            column.append(int(value) if _is_integer(name) else float(value))
        rows += 1
    if not rows:
        raise ValueError(f"{head.path} must hold at least one request, got none")
    arrays = {name: np.frombuffer(column.tobytes(), column.typecode) for name, column in columns.items()}
    return _requests(head, arrays, log)


def _is_integer(name: str) -> bool:
    return COLUMNS[name].dtype is np.int64


def _requests(head: Head, columns: dict[str, Any], log: RowLog) -> FixedRequests:
    columns["arrival"] = run_times(columns["arrival"], log, "s", head.time_unit)
    try:
        return FixedRequests(RequestTable.from_columns(**columns))
    except ColumnError as error:  # in columns that refer to other rows
        where = "" if error.index is None else f", request {error.index} counted from 0"
        raise ValueError(f"{head.path}{where}, column {error.column} {error.problem}") from None


PLAIN_CSV = TraceFormat(
    "plain CSV",
    "arrival,prompt_tokens,output_tokens and optional other columns",
    _read_csv,
    header=CsvHeader(_REQUIRED, tuple(COLUMNS), True),
    takes=("time_unit",),
)
PLAIN_JSONL = TraceFormat(
    "plain JSON lines",
    "JSON objects with arrival, prompt_tokens and output_tokens",
    _read_jsonl,
    lambda head: head.row is not None and "arrival" in head.row and "prompt_tokens" in head.row,
    takes=("time_unit",),
)
