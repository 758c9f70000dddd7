"""Requests of a vLLM run as the engine times them, JSON lines; arrivals are counted from the first.

`request_id`, `input_toks`, `output_toks`, `arrival_time` (s); for calibration `queued_ts`, `first_token_ts` and
`last_token_ts` (s, one clock).
"""

from llmsched_env.workloads.formats.json_reader import Row, read_lines, seconds, tokens
from llmsched_env.workloads.formats.measured import MeasuredCall, replayed
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests


def _sent(row: Row) -> MeasuredCall:
    return MeasuredCall(seconds(row, "arrival_time"), tokens(row, "input_toks"), tokens(row, "output_toks"))


def _timed(row: Row) -> MeasuredCall:
    queued, first, last = (seconds(row, key) for key in ("queued_ts", "first_token_ts", "last_token_ts"))
    if not queued < first <= last:
        raise CellError("first_token_ts", f"must be > queued_ts ({queued}) and <= last_token_ts ({last}), got {first}")
    return MeasuredCall(queued, tokens(row, "input_toks"), tokens(row, "output_toks"), first - queued, last - queued)


def _read(head: Head, log: RowLog) -> FixedRequests:
    return replayed(read_lines(head.path, log, _sent), log)


def _read_calls(head: Head, log: RowLog) -> list[MeasuredCall]:
    return read_lines(head.path, log, _timed)


VLLM_RUN = TraceFormat(
    "vLLM run",
    "JSON lines with input_toks, output_toks and arrival_time, or queued_ts",
    _read,
    lambda head: head.row is not None and "input_toks" in head.row,
    read_calls=_read_calls,
)
