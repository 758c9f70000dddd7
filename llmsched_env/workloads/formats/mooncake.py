"""Mooncake's traces (R. Qin et al., FAST 2025, https://github.com/kvcache-ai/Mooncake), JSON lines.

`timestamp` in ms, `input_length`, `output_length`, and `hash_ids` of the prompt's blocks of 512 tokens. Requests with
equal times keep their order. `vllm bench serve --dataset-name timed_trace` replays the same files.
"""

from llmsched_env.workloads.formats.json_reader import Row, block_ids, read_lines, seconds, tokens
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_calls import TraceCall, table_of
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests

_BLOCK_TOKENS = 512


def _parse(row: Row) -> TraceCall:
    arrival = seconds(row, "timestamp", per_second=1000)
    lengths = tokens(row, "input_length"), tokens(row, "output_length")
    return TraceCall(arrival, *lengths, blocks=block_ids(row, "hash_ids"))


def _read(head: Head, log: RowLog) -> FixedRequests:
    return FixedRequests(table_of(read_lines(head.path, log, _parse), _BLOCK_TOKENS))


MOONCAKE = TraceFormat(
    "Mooncake",
    "JSON lines with timestamp, input_length, output_length and hash_ids",
    _read,
    lambda head: head.row is not None and "timestamp" in head.row and "input_length" in head.row,
)
