"""Calls of agent sessions as CSV, one row per call; every session begins at time 0.

`prefix_hit_tokens` are shared with the previous call of the session. Calls without output failed and are left out.

As tasks: the next call of a session is ready `wait_before_s` after each answer. SESSION/AGENT is a sub-agent of
SESSION; its rows are between the call that started it and the call that waited for it.
"""

import csv
import math
from collections.abc import Hashable

import numpy as np

from llmsched_env.tables.request_table import ColumnSpec
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.workloads.formats import csv_parser
from llmsched_env.workloads.formats.clock import run_times
from llmsched_env.workloads.formats.csv_reader import LABEL, Columns, CsvCell, cell_of, label, read_csv
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_calls import TraceCall, table_of, tasks_of
from llmsched_env.workloads.formats.trace_format import CsvHeader, Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests

_REQUIRED = ("session_id", "t_s", "input_tokens", "output_tokens")
_OTHER = ("call_index", "trigger", "new_tokens", "stop_reason")
_CELLS = {
    "session_id": LABEL,
    "t_s": cell_of("arrival"),
    "input_tokens": cell_of("prompt_tokens"),
    "output_tokens": cell_of("output_tokens", low=0, allowed="an integer >= 0 and <= 1e9 (tokens)"),
    "prefix_hit_tokens": cell_of("shared_tokens", optional=True),
}
_LIMITS = ColumnSpec(np.float64, 0.0, 1e12, math.nan, "a finite number >= 0 (s)")
_SECONDS = CsvCell(csv_parser.NUMBER, _LIMITS, optional=True)
_TIME_CELLS = {"wait_before_s": _SECONDS, "api_time_s": _SECONDS}


def _read(head: Head, log: RowLog) -> FixedRequests:
    return FixedRequests(table_of(_calls(_columns(head, log, _CELLS))))


def _read_tasks(head: Head, log: RowLog) -> TaskTable:
    columns = _columns(head, log, _CELLS | _TIME_CELLS)
    callers = _callers(head)
    n = len(columns["t_s"])
    wait, served = (columns.get(title, np.full(n, math.nan)).tolist() for title in _TIME_CELLS)
    calls = [
        call._replace(
            caller=callers.get(call.session),
            wait=None if math.isnan(wait[i]) else wait[i],
            served=0.0 if math.isnan(served[i]) else served[i],
        )
        for i, call in enumerate(_calls(columns))
    ]
    return tasks_of(calls)


def _columns(head: Head, log: RowLog, cells: dict[str, CsvCell]) -> Columns:
    cells = {title: cell for title, cell in cells.items() if title in head.titles}
    columns = read_csv(head.path, head.titles, cells, log, failed=lambda columns: columns["output_tokens"] == 0)
    columns["t_s"] = run_times(columns["t_s"], log, "s", head.time_unit)
    return columns


def _calls(columns: Columns) -> list[TraceCall]:
    sessions, times, prompts, outputs = (columns[title].tolist() for title in _REQUIRED)
    hits = columns["prefix_hit_tokens"].tolist() if "prefix_hit_tokens" in columns else [0] * len(times)
    rows = zip(times, prompts, outputs, sessions, hits, strict=True)
    return [TraceCall(time, prompt, output, name, hit_tokens=hit) for time, prompt, output, name, hit in rows]


def _callers(head: Head) -> dict[Hashable, int]:
    """The calling session of each sub-agent session, both as hashes of their names."""
    place = head.titles.index("session_id")
    with head.path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        names = {row[place].strip() for row in csv.reader(file) if len(row) > place}
    return {label(name): label(name.rpartition("/")[0]) for name in names if "/" in name}


AGENT_CALLS = TraceFormat(
    "agent calls",
    f"{','.join(_REQUIRED)},...",
    _read,
    header=CsvHeader(_REQUIRED, (*_CELLS, *_TIME_CELLS, *_OTHER)),
    read_tasks=_read_tasks,
    takes=("time_unit",),
)
