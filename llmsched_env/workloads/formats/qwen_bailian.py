"""Qwen-Bailian usage traces (https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon), JSON lines.

`timestamp` in seconds, `input_length`, `output_length`, `hash_ids` of the prompt's blocks of 16 tokens, `chat_id` and
`parent_chat_id` (-1: none). A chain of parents is a session. As tasks, a call is ready as long after the end of the one
before it as the recorded arrivals are apart, since ends are not recorded.
"""

from collections.abc import Hashable

from llmsched_env.tables.task_table import TaskTable
from llmsched_env.workloads.formats.hash_blocks import block_size, on_run_clock, parse_row
from llmsched_env.workloads.formats.json_reader import Row, label
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_calls import TraceCall, table_of, tasks_by_arrival
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests

_BLOCK = 16


def _read(head: Head, log: RowLog) -> FixedRequests:
    return FixedRequests(table_of(*_calls(head, log)))


def _read_tasks(head: Head, log: RowLog) -> TaskTable:
    return tasks_by_arrival(*_calls(head, log))


def _calls(head: Head, log: RowLog) -> tuple[list[TraceCall], int]:
    """All calls, and the tokens per block."""
    parents: dict[Hashable, Hashable] = {}

    def parse(row: Row) -> TraceCall:
        call, chat = parse_row(row), label(row, "chat_id")
        parents[chat] = label(row, "parent_chat_id")
        return call._replace(session=chat)

    calls = on_run_clock(head, head.rows(log, parse), log, unit="s")
    roots = _roots(parents)
    return [call._replace(session=roots[call.session]) for call in calls], block_size(head, calls, log, _BLOCK)


def _roots(parents: dict[Hashable, Hashable]) -> dict[Hashable, Hashable]:
    """The first chat of the chain of each; a parent that is not in the file is one."""
    roots: dict[Hashable, Hashable] = {}
    for chat in parents:
        chain: dict[Hashable, None] = {}
        top = chat
        while top not in roots and top not in chain:  # the second: chats that are their own ancestors
            chain[top] = None
            parent = parents.get(top, -1)
            top = top if parent in (-1, None) else parent
        roots |= dict.fromkeys(chain, roots.get(top, top))
    return roots


QWEN_BAILIAN = TraceFormat(
    "Qwen-Bailian trace",
    "JSON lines with chat_id, parent_chat_id, timestamp, input_length, output_length and hash_ids",
    _read,
    lambda head: {"timestamp", "input_length", "chat_id"} <= head.first.keys(),
    read_tasks=_read_tasks,
    takes=("time_unit", "block_tokens"),
)
