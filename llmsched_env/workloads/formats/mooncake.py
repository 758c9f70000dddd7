"""Mooncake's traces (R. Qin et al., FAST 2025, https://github.com/kvcache-ai/Mooncake), and others in their form.

JSON lines: `timestamp` in ms, `input_length`, `output_length`, and `hash_ids` of the prompt's blocks of 512 tokens.
Requests with equal times keep their order. `vllm bench serve --dataset-name timed_trace` replays the same files. Other
tools write the same keys with other units and block sizes, so both are recognised by their numbers, see `hash_blocks`.
"""

from llmsched_env.workloads.formats.hash_blocks import block_size, on_run_clock, parse_row
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_calls import table_of
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests


def _read(head: Head, log: RowLog) -> FixedRequests:
    calls = on_run_clock(head, head.rows(log, parse_row), log)
    return FixedRequests(table_of(calls, block_size(head, calls, log)))


MOONCAKE = TraceFormat(
    "Mooncake trace",
    "JSON lines with timestamp, input_length, output_length and hash_ids",
    _read,
    lambda head: {"timestamp", "input_length"} <= head.first.keys() and "chat_id" not in head.first,
    takes=("time_unit", "block_tokens"),
)
