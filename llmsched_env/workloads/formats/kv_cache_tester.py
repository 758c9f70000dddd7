"""Coding-agent sessions of kv-cache-tester (https://github.com/callanjfox/kv-cache-tester): a JSON file or a folder.

Times `t` count from the start of the session, so all sessions of a folder begin at 0. A sub-agent is a session of its
own: its entry has the time of its end and its duration, and its calls count from its start. `hash_ids` are local to one
file.

As tasks: the next call of a session is ready `think_time` after each answer. Sub-agents between two calls run in
parallel after the first, and the second waits for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llmsched_env.files import read_object
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.workloads.formats.clock import run_times
from llmsched_env.workloads.formats.json_reader import Row, block_ids, nested, seconds, tokens
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_calls import TraceCall, table_of, tasks_of
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests

_PATTERN = "*.json"


def _read(head: Head, log: RowLog) -> FixedRequests:
    return FixedRequests(table_of(*_sessions(head, log)))


def _read_tasks(head: Head, log: RowLog) -> TaskTable:
    return tasks_of(*_sessions(head, log))


def _sessions(head: Head, log: RowLog) -> tuple[list[TraceCall], int]:
    """All calls in the order of the files, and the tokens per block."""
    files = sorted(head.path.glob(_PATTERN)) if head.path.is_dir() else [head.path]
    calls: list[TraceCall] = []
    block_tokens: set[int] = set()
    for path in files:
        session = read_object(path) if head.document is None else head.document
        try:
            block_tokens.add(tokens(session, "block_size"))
            nested(session, "requests", list)
        except CellError as error:
            raise ValueError(f"{path}, {error.column} {error.problem}") from None
        scope = path.name if session.get("hash_id_scope", "local") == "local" else None
        calls.extend(_calls(session, path, log, scope, name=path.name, begin=0.0, where="requests"))
    if len(block_tokens) > 1:
        raise ValueError(f"{head.path}: block_size must be the same in all files, got {sorted(block_tokens)}")
    if not calls:
        raise ValueError(f"{head.path} must hold at least one request, got none")
    size = block_tokens.pop()
    arrivals = run_times(np.array([call.arrival for call in calls]), log, "s", head.time_unit).tolist()
    log.says(f"blocks of {size}")
    return [call._replace(arrival=arrival) for call, arrival in zip(calls, arrivals, strict=True)], size


def _calls(
    session: Row,
    path: Path,
    log: RowLog,
    scope: str | None,
    name: str,
    begin: float,
    where: str,
    caller: str | None = None,
) -> Iterator[TraceCall]:
    """The calls of a session and of its sub-agents; bad ones are reported by their index in the file's lists."""
    for i, row in enumerate(session["requests"]):
        place = f"{where}[{i}]"
        try:
            if not isinstance(row, dict):
                raise CellError("", f"must be a JSON object, got {repr(row)[:80]}")
            start = begin + seconds(row, "t")
            if row.get("type") == "subagent":
                inner = f"{name}/{row.get('agent_id', i)}"
                start = max(begin, start - _duration(row))
                yield from _calls(row, path, log, scope, inner, start, f"{place}.requests", name)
                continue
            wait, served = (_optional_seconds(row, key) for key in ("think_time", "api_time"))
            lengths = tokens(row, "in"), tokens(row, "out", low=0)
            blocks = block_ids(row, "hash_ids")
        except CellError as error:
            log.bad(path, None, f"{place}.{error.column}".rstrip("."), error.problem)
            continue
        if lengths[1]:
            yield TraceCall(
                start, *lengths, name, blocks=blocks, scope=scope, caller=caller, wait=wait, served=served or 0.0
            )
        else:
            log.failed()


def _duration(agent: Row) -> float:
    """Seconds that a sub-agent ran; if not recorded, until its last call was served."""
    calls = nested(agent, "requests", list)
    if agent.get("duration_ms") is not None:
        return seconds(agent, "duration_ms", per_second=1000)
    last = calls[-1] if calls and isinstance(calls[-1], dict) else {}
    return sum(_optional_seconds(last, key) or 0.0 for key in ("t", "api_time"))


def _optional_seconds(row: Row, key: str) -> float | None:
    return None if row.get(key) is None else seconds(row, key)


def _matches(head: Head) -> bool:
    if head.path.is_dir():
        return next(head.path.glob(_PATTERN), None) is not None
    return head.document is not None and "requests" in head.document and "block_size" in head.document


KV_CACHE_TESTER = TraceFormat(
    "kv-cache-tester",
    f"a JSON object with requests and block_size, or a folder of {_PATTERN}",
    _read,
    _matches,
    read_tasks=_read_tasks,
    takes=("time_unit",),
    last_resort=True,  # because ServeGen's folders hold JSON files too
)
