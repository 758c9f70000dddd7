"""Calls of agents' sessions as a CSV, one row a call; every session begins at time 0.

`prefix_hit_tokens` are shared with the session's call before; calls without output are failed ones, left out.
"""

from llmsched_env.workloads.formats.calls import Call, table_of
from llmsched_env.workloads.formats.cells import LABEL, cell_of
from llmsched_env.workloads.formats.csv_blocks import Columns, read_csv
from llmsched_env.workloads.formats.format import CsvHeader, TraceFormat
from llmsched_env.workloads.formats.head import Head
from llmsched_env.workloads.formats.rows import RowLog
from llmsched_env.workloads.sources import FixedRequests

_REQUIRED = ("session_id", "t_s", "input_tokens", "output_tokens")
_OTHER = ("call_index", "trigger", "new_tokens", "wait_before_s", "api_time_s", "stop_reason")
_CELLS = {
    "session_id": LABEL,
    "t_s": cell_of("arrival"),
    "input_tokens": cell_of("prompt_tokens"),
    "output_tokens": cell_of("output_tokens", low=0, allowed="an integer >= 0 and <= 1e9 (tokens)"),
    "prefix_hit_tokens": cell_of("shared_tokens", optional=True),
}


def _failed(columns: Columns):
    return columns["output_tokens"] == 0


def _read(head: Head, log: RowLog) -> FixedRequests:
    cells = {title: cell for title, cell in _CELLS.items() if title in head.titles}
    columns = read_csv(head.path, head.titles, cells, log, failed=_failed)
    session, times, prompt, output = (columns[title].tolist() for title in _REQUIRED)
    hits = columns["prefix_hit_tokens"].tolist() if "prefix_hit_tokens" in columns else [0] * len(times)
    rows = zip(times, prompt, output, session, hits, strict=True)
    return FixedRequests(table_of([Call(*call, hit_tokens=hit) for *call, hit in rows]))


AGENT_CALLS = TraceFormat(
    "agent calls",
    f"{','.join(_REQUIRED)},...",
    _read,
    header=CsvHeader(_REQUIRED, (*_CELLS, *_OTHER)),
)
