"""BurstGPT (Y. Wang et al., KDD 2025, https://github.com/HPMLL/BurstGPT), all versions: columns are read by name.

Rows of zero tokens are failed requests, which are counted and left out. Models become classes, and the session ids of
version 3 become sessions; both are numbered in order of appearance.
"""

import numpy as np

from llmsched_env.tables.request_table import RequestTable
from llmsched_env.workloads.formats.clock import run_times
from llmsched_env.workloads.formats.csv_reader import LABEL, Columns, cell_of, label, read_csv
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_format import CsvHeader, Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests

_PROMPT, _OUTPUT = "Request tokens", "Response tokens"
_ALLOWED = "an integer >= 0 and <= 1e9 (tokens)"
_CELLS = {
    "Timestamp": cell_of("arrival"),
    _PROMPT: cell_of("prompt_tokens", low=0, allowed=_ALLOWED),
    _OUTPUT: cell_of("output_tokens", low=0, allowed=_ALLOWED),
}
_LABELS = ("Model", "Session ID")
_KNOWN = (*_CELLS, *_LABELS, "Elapsed time", "Total tokens", "Log Type")


def _failed(columns: Columns) -> np.ndarray:
    return np.asarray((columns[_PROMPT] == 0) | (columns[_OUTPUT] == 0))


def _read(head: Head, log: RowLog) -> FixedRequests:
    cells = {**_CELLS, **{title: LABEL for title in _LABELS if title in head.titles}}
    columns = read_csv(head.path, head.titles, cells, log, failed=_failed)
    columns["Timestamp"] = run_times(columns["Timestamp"], log, "s", head.time_unit)
    arrival = columns["Timestamp"]
    if (arrival[1:] < arrival[:-1]).any():
        order = np.argsort(arrival, kind="stable")
        columns = {title: values[order] for title, values in columns.items()}
    table = RequestTable.from_columns(
        *(columns[title] for title in _CELLS),
        klass=_numbered(columns["Model"]) if "Model" in columns else None,
        session=_sessions(columns["Session ID"]) if "Session ID" in columns else None,
    )
    return FixedRequests(table)


def _sessions(labels: np.ndarray) -> np.ndarray:
    """Numbers of sessions, -1 for an empty cell, as calls of the API have."""
    session, known = np.full(len(labels), -1, np.int64), labels != label("")
    session[known] = _numbered(labels[known])
    return session


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Distinct labels [n] numbered from 0 in order of first appearance, read-only i8[n]."""
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    result = number[place]
    result.flags.writeable = False
    return result


BURSTGPT = TraceFormat(
    "BurstGPT",
    "Timestamp,Model,Request tokens,Response tokens,...",
    _read,
    header=CsvHeader(tuple(_CELLS), _KNOWN),
    takes=("time_unit",),
)
