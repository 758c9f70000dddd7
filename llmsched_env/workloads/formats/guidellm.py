"""Results of GuideLLM (https://github.com/vllm-project/guidellm), one JSON object with a run for each benchmark.

Requests that errored or were cut off by the end of the benchmark are counted as failed. Start times are replayed. The
strategies `synchronous` and `concurrent` are closed loops, and so is `throughput` with a limit of requests.
"""

from __future__ import annotations

import math
from typing import Any

from llmsched_env.tables.request_table import COLUMNS
from llmsched_env.workloads.formats.json_reader import Row, nested, number, parsed_rows, seconds, tokens
from llmsched_env.workloads.formats.measured import MeasuredCall, replayed
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests

_USERS = COLUMNS["client"]._replace(low=1, allowed="an integer >= 1 and <= 1e6")


def _runs(head: Head) -> list[tuple[Row, str]]:
    assert head.document is not None  # as `_matches` says
    runs = head.document["benchmarks"]
    if not runs or not all(isinstance(run, dict) for run in runs):
        raise ValueError(f"{head.path}: benchmarks must be objects, at least one")
    return [(run, _described(run)) for run in runs]


def _described(run: Row) -> str:
    strategy = _strategy(run)
    words = [str(strategy.get(key)) for key in ("type_", "streams", "max_concurrency", "rate") if strategy.get(key)]
    return " ".join(words) or "unknown strategy"


def _strategy(run: Row) -> Row:
    """The object that says how requests were sent; it has moved between versions."""
    for outer in ("config", "args", "scheduler"):
        group = run.get(outer)
        if isinstance(group, dict) and isinstance(group.get("strategy"), dict):
            strategy: Row = group["strategy"]
            return strategy
    return {}


def _read(head: Head, log: RowLog) -> FixedRequests:
    calls = _calls(head, log)
    assert head.document is not None
    strategy = _strategy(head.document)
    try:
        users = _users(strategy)
    except CellError as error:
        raise ValueError(f"{head.path}: strategy.{error.column} {error.problem}") from None
    return replayed(calls, log, users, open_loop=strategy.get("type_") in ("constant", "poisson", "trace"))


def _users(strategy: Row) -> int | None:
    kind = strategy.get("type_")
    if kind == "synchronous":
        return 1
    key = {"concurrent": "streams", "throughput": "max_concurrency"}.get(str(kind), "")
    return int(number(strategy, key, _USERS)) if strategy.get(key) is not None else None


def _calls(head: Head, log: RowLog) -> list[MeasuredCall]:
    assert head.document is not None
    try:
        requests: dict[str, Any] = nested(head.document, "requests", dict)
        rows = nested(requests, "successful", list)
        if not all(isinstance(row, dict) for row in rows):
            raise CellError("successful", "must be a list of objects")
    except CellError as error:
        raise ValueError(f"{head.path}: requests.{error.column} {error.problem}") from None
    log.failed(sum(len(requests[kind]) for kind in ("errored", "incomplete") if isinstance(requests.get(kind), list)))
    return parsed_rows(head.path, rows, log, _call)


def _call(row: Row) -> MeasuredCall:
    times = "start_time" if "start_time" in row and "request_start_time" not in row else "request_start_time"
    ends = times.replace("start", "end")
    start, end = seconds(row, times), seconds(row, ends)
    if end < start:
        raise CellError(ends, f"must be >= {times} ({start}), got {end}")
    first = row.get("time_to_first_token_ms")
    ttft = math.nan if first is None else seconds(row, "time_to_first_token_ms", per_second=1000)
    return MeasuredCall(start, tokens(row, "prompt_tokens"), tokens(row, "output_tokens"), ttft, end - start)


GUIDELLM = TraceFormat(
    "GuideLLM",
    "a JSON object with benchmarks, as GuideLLM writes",
    _read,
    lambda head: head.document is not None and isinstance(head.document.get("benchmarks"), list),
    runs=_runs,
    read_calls=_calls,
)
