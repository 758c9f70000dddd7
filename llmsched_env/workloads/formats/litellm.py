"""Request logs of LiteLLM's proxy (https://docs.litellm.ai), JSON lines, a JSON array, or CSV of its spend logs.

`startTime`, `endTime` and `completionStartTime` (ISO 8601, UTC, or Unix seconds), `prompt_tokens` and
`completion_tokens`. Failed requests and those without output are counted and left out. `session_id` is the session and
`user` (or the hashed key) the client. Start times are replayed; requests that the proxy's own cache answered reached no
engine and are left out.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator

from llmsched_env.validation import shown
from llmsched_env.workloads.formats.json_reader import Row, label, moment, parsed_rows, tokens
from llmsched_env.workloads.formats.measured import MeasuredCall, replayed
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_format import CsvHeader, Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests

_REQUIRED = ("startTime", "prompt_tokens", "completion_tokens")
_TIMES = ("startTime", "endTime", "completionStartTime")
_OTHER = ("request_id", "call_type", "spend", "total_tokens", "status", "session_id", "api_key", "cache_hit", "user")


def _read(head: Head, log: RowLog) -> FixedRequests:
    return replayed(_calls(head, log), log, open_loop=True)


def _calls(head: Head, log: RowLog) -> list[MeasuredCall]:
    def parse(row: Row) -> MeasuredCall | None:
        if str(row.get("status", "success")) in ("failure", "failed"):
            log.failed()
            return None
        if row.get("cache_hit") in (True, "True", "true"):
            return None
        start = moment(row, "startTime")
        lengths = tokens(row, "prompt_tokens", low=0), tokens(row, "completion_tokens", low=0)
        if not all(lengths):
            log.failed()
            return None
        first, last = _after(row, "completionStartTime", start), _after(row, "endTime", start)
        client = label(row, "user") or label(row, "end_user") or label(row, "api_key")
        return MeasuredCall(start, *lengths, first, last, session=label(row, "session_id"), client=client)

    if head.titles:
        return parsed_rows(head.path, list(_csv_rows(head)), log, parse)
    calls: list[MeasuredCall] = head.rows(log, parse)
    return calls


def _after(row: Row, key: str, start: float) -> float:
    """Seconds from the start to the time under `key`, nan if it is missing."""
    if row.get(key) in (None, ""):
        return math.nan
    time = moment(row, key)
    if time < start:
        raise CellError(key, f"must be >= startTime, got {shown(row[key])}")
    return time - start


def _csv_rows(head: Head) -> Iterator[Row]:
    with head.path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            for cells in csv.DictReader(file):
                row: Row = {key: value for key, value in cells.items() if key is not None and value}
                yield row | {key: _number(row[key]) for key in (*_TIMES, *_REQUIRED[1:]) if key in row}
        except csv.Error as error:
            raise ValueError(f"{head.path} must be CSV text: {error}") from None


def _number(text: str) -> str | float:
    """The number in a cell, or its text."""
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


LITELLM = TraceFormat(
    "LiteLLM log",
    "JSON with startTime, prompt_tokens and completion_tokens, as LiteLLM logs",
    _read,
    lambda head: set(_REQUIRED) <= head.first.keys(),
    read_calls=_calls,
)
LITELLM_CSV = TraceFormat(
    "LiteLLM log",
    ",".join(_REQUIRED) + ",...",
    _read,
    header=CsvHeader(_REQUIRED, tuple(dict.fromkeys((*_REQUIRED, *_TIMES, *_OTHER)))),
    read_calls=_calls,
)
