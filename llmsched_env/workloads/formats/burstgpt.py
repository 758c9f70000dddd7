"""BurstGPT (Y. Wang et al., KDD 2025, https://github.com/HPMLL/BurstGPT), all versions: columns are read by name.

Rows of zero tokens are failed requests, left out and counted. Models become classes and version 3's session ids
sessions, both numbered in order of appearance.
"""

import numpy as np

from llmsched_env.simulator.request_table import RequestTable
from llmsched_env.workloads.formats.cells import LABEL, cell_of, label
from llmsched_env.workloads.formats.csv_blocks import Columns, read_csv
from llmsched_env.workloads.formats.format import CsvHeader, TraceFormat
from llmsched_env.workloads.formats.head import Head
from llmsched_env.workloads.formats.numbering import numbered
from llmsched_env.workloads.formats.rows import RowLog
from llmsched_env.workloads.sources import FixedRequests

_PROMPT, _OUTPUT = "Request tokens", "Response tokens"
_TOKENS = {"low": 0, "allowed": "an integer >= 0 and <= 1e9 (tokens)"}
_CELLS = {
    "Timestamp": cell_of("arrival"),
    _PROMPT: cell_of("prompt_tokens", **_TOKENS),
    _OUTPUT: cell_of("output_tokens", **_TOKENS),
}
_LABELS = ("Model", "Session ID")
_KNOWN = (*_CELLS, *_LABELS, "Elapsed time", "Total tokens", "Log Type")


def _failed(columns: Columns) -> np.ndarray:
    return (columns[_PROMPT] == 0) | (columns[_OUTPUT] == 0)


def _read(head: Head, log: RowLog) -> FixedRequests:
    cells = {**_CELLS, **{title: LABEL for title in _LABELS if title in head.titles}}
    columns = read_csv(head.path, head.titles, cells, log, failed=_failed)
    arrival = columns["Timestamp"]
    if (arrival[1:] < arrival[:-1]).any():
        order = np.argsort(arrival, kind="stable")
        columns = {title: values[order] for title, values in columns.items()}
    labels = {}
    if "Model" in columns:
        labels["klass"] = numbered(columns["Model"])
    if "Session ID" in columns:
        labels["session"] = _sessions(columns["Session ID"])
    return FixedRequests(RequestTable.from_columns(*(columns[title] for title in _CELLS), **labels))


def _sessions(labels: np.ndarray) -> np.ndarray:
    """Numbers of sessions, -1 where the cell is empty, as it is for calls of the API."""
    session, known = np.full(len(labels), -1, np.int64), labels != label("")
    session[known] = numbered(labels[known])
    return session


BURSTGPT = TraceFormat(
    "BurstGPT", "Timestamp,Model,Request tokens,Response tokens,...", _read, header=CsvHeader(tuple(_CELLS), _KNOWN)
)
