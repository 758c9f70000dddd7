"""Requests of a vLLM run as the engine times them, JSON lines; arrivals are counted from the first.

`request_id`, `input_toks`, `output_toks`, `arrival_time` (s); the other measured times are for calibration.
"""

from llmsched_env.workloads.formats.json_reader import Row, read_lines, seconds, tokens
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_calls import TraceCall, table_of
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests


def _parse(row: Row) -> TraceCall:
    return TraceCall(seconds(row, "arrival_time"), tokens(row, "input_toks"), tokens(row, "output_toks"))


def _read(head: Head, log: RowLog) -> FixedRequests:
    calls = read_lines(head.path, log, _parse)
    first = min(call.arrival for call in calls)
    return FixedRequests(table_of([call._replace(arrival=call.arrival - first) for call in calls]))


VLLM_RUN = TraceFormat(
    "vLLM run",
    "JSON lines with input_toks, output_toks and arrival_time",
    _read,
    lambda head: head.row is not None and "input_toks" in head.row,
)
