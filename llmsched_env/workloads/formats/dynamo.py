"""Request traces of NVIDIA Dynamo (https://github.com/ai-dynamo/dynamo): JSON lines of events of agent sessions.

Requests are the events of type `request_end`, written when they end; all other events are ignored. Arrivals are counted
from the earliest one. Sub-agents have their own sessions, which name the session that waits for them.
"""

from llmsched_env.tables.task_table import TaskTable
from llmsched_env.workloads.formats.json_reader import Row, block_ids, label, nested, read_lines, seconds, tokens
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_calls import TraceCall, table_of, tasks_by_arrival
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests


def _read(head: Head, log: RowLog) -> FixedRequests:
    return FixedRequests(table_of(*_requests(head, log)))


def _read_tasks(head: Head, log: RowLog) -> TaskTable:
    return tasks_by_arrival(*_requests(head, log))


def _requests(head: Head, log: RowLog) -> tuple[list[TraceCall], int]:
    """All calls in order of their ends, and the tokens per block."""
    block_tokens: set[int] = set()

    def parse(row: Row) -> TraceCall | None:
        event = nested(row, "event", dict)
        if event.get("event_type") != "request_end":
            return None
        request = nested(event, "request", dict)
        replay = nested(request, "replay", dict) if request.get("replay") else {}
        agent = nested(event, "agent_context", dict) if event.get("agent_context") else {}
        served = request.get("total_time_ms") is not None
        call = TraceCall(
            seconds(request, "request_received_ms"),
            tokens(request, "input_tokens"),
            tokens(request, "output_tokens"),
            label(agent, "session_id"),
            blocks=block_ids(replay, "input_sequence_hashes"),
            caller=label(agent, "parent_session_id"),
            served=seconds(request, "total_time_ms", per_second=1000) if served else 0.0,
        )
        if call.blocks:
            block_tokens.add(tokens(replay, "trace_block_size"))
            if len(block_tokens) > 1:
                raise CellError("trace_block_size", f"must be the same for all requests, got {sorted(block_tokens)}")
        return call

    calls = read_lines(head.path, log, parse)
    first = min(call.arrival for call in calls)
    log.says(f"milliseconds, counted from the first, blocks of {max(block_tokens, default=1)}")
    shifted = [call._replace(arrival=(call.arrival - first) / 1000) for call in calls]
    return shifted, max(block_tokens, default=1)


DYNAMO = TraceFormat(
    "Dynamo",
    "JSON lines with an event of schema dynamo.request.trace",
    _read,
    lambda head: head.row is not None and isinstance(head.row.get("event"), dict),
    read_tasks=_read_tasks,
)
