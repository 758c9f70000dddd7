"""TraceLab's rounds of coding agents (https://tracelab.cs.washington.edu), JSON lines.

A round is one call. It is issued at the last event of its input (a person's message or a tool's result) and served by
its last event. The provider's cache hits (`prefix_tokens`) count as shared with the session's previous round. Arrivals
are counted from the earliest one.
"""

from llmsched_env.tables.task_table import TaskTable
from llmsched_env.workloads.formats.json_reader import Row, label, nested, read_lines, stamp, tokens
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_calls import TraceCall, table_of, tasks_by_arrival
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests

_INPUTS = ("user_message", "tool_result")


def _read(head: Head, log: RowLog) -> FixedRequests:
    return FixedRequests(table_of(_rounds(head, log)))


def _read_tasks(head: Head, log: RowLog) -> TaskTable:
    return tasks_by_arrival(_rounds(head, log))


def _rounds(head: Head, log: RowLog) -> list[TraceCall]:
    def parse(row: Row) -> TraceCall | None:
        events = nested(row, "timing_events", list)
        if not events or not all(isinstance(event, dict) for event in events):
            raise CellError("timing_events", f"must be a list of events, got {repr(events)[:80]}")
        inputs = [event for event in events if event.get("event_type") in _INPUTS]
        issued = max(stamp(event, "timestamp") for event in inputs) if inputs else stamp(events[0], "timestamp")
        lengths = tokens(row, "input_tokens_total"), tokens(row, "output_tokens", low=0)
        if not lengths[1]:
            log.failed()
            return None
        hit = 0 if row.get("prefix_tokens") is None else tokens(row, "prefix_tokens", low=0)
        served = max(stamp(event, "timestamp") for event in events) - issued
        return TraceCall(
            issued, *lengths, label(row, "session_id"), label(row, "project"), hit_tokens=hit, served=round(served, 6)
        )

    calls = read_lines(head.path, log, parse)
    first = min(call.arrival for call in calls)
    log.says("time stamps counted from the first")
    # Stamps have milliseconds; the difference of two floats since 1970 has noise below a microsecond.
    return [call._replace(arrival=round(call.arrival - first, 6)) for call in calls]


TRACELAB = TraceFormat(
    "TraceLab",
    "JSON lines with session_id, input_tokens_total and timing_events",
    _read,
    lambda head: head.row is not None and "input_tokens_total" in head.row,
    read_tasks=_read_tasks,
)
