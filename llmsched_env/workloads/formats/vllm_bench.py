"""Results of `vllm bench serve --save-result --save-detailed`, one JSON object.

`input_lens` and `output_lens` are in order of sending. Failed requests (an error, or no output) are counted and left
out. Without `start_times`, arrivals are drawn as the benchmark draws them: gamma gaps of shape `burstiness`, rescaled
so that the last request is sent at n/`request_rate`, or all at time 0 if the rate is infinite.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmsched_env.tables.request_table import COLUMNS, RequestTable
from llmsched_env.workloads.arrivals import Gamma
from llmsched_env.workloads.formats.json_reader import number, tokens
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests, Source, TimelessRequests

_RATE = COLUMNS["predicted_output"]._replace(default=0.0, allowed="a finite number > 0, or inf")


def _read(head: Head, log: RowLog) -> Source:
    result = _document(head)
    lists = {name: _list(head, name) for name in ("input_lens", "output_lens", "errors", "start_times")}
    n = len(lists["input_lens"] or ())
    for name, values in lists.items():
        if values is not None and len(values) != n:
            raise ValueError(f"{head.path}: {name} must have one value per request, that is {n}, got {len(values)}")
    kept = []
    for i in range(n):
        row = {name: values[i] for name, values in lists.items() if values is not None}
        try:
            if row.get("errors") or row["output_lens"] == 0:
                log.failed()
                continue
            start = number(row, "start_times", COLUMNS["arrival"]) if "start_times" in row else 0.0
            kept.append((start, tokens(row, "input_lens"), tokens(row, "output_lens")))
        except CellError as error:
            log.bad(head.path, None, f"{error.column}[{i}]", error.problem)
    if not kept:
        raise ValueError(f"{head.path} must hold at least one request that succeeded, got none")
    if lists["start_times"] is not None:
        kept.sort(key=lambda request: request[0])
    start, prompt, output = np.array(kept).T
    if lists["start_times"] is not None:
        start -= start[0]
    try:
        rate = _rate(result.get("request_rate"))
        burstiness = number({"burstiness": 1.0, **_given(result, "burstiness")}, "burstiness", _RATE)
    except CellError as error:
        raise ValueError(f"{head.path}: {error.column} {error.problem}") from None
    table = RequestTable.from_columns(start, prompt, output)
    if lists["start_times"] is not None or math.isinf(rate):
        return FixedRequests(table)
    return TimelessRequests(table, rate, Gamma(cv=burstiness**-0.5))


def _document(head: Head) -> dict[str, Any]:
    assert head.document is not None  # as `_matches` says
    return head.document


def _list(head: Head, name: str) -> list[Any] | None:
    values = _document(head).get(name)
    if values is None and name in ("errors", "start_times"):
        return None
    if not isinstance(values, list):
        hint = "; was the result saved with --save-detailed?" if values is None else ""
        raise ValueError(f"{head.path}: {name} must be a list, got {repr(values)[:80]}{hint}")
    return values


def _given(result: dict[str, Any], name: str) -> dict[str, Any]:
    return {} if result.get(name) is None else {name: result[name]}


def _rate(value: Any) -> float:
    if value is None or value in ("inf", math.inf):
        return math.inf
    return float(number({"request_rate": value}, "request_rate", _RATE))


def _matches(head: Head) -> bool:
    return head.document is not None and ("input_lens" in head.document or "request_throughput" in head.document)


VLLM_BENCH = TraceFormat("vllm bench serve", "a JSON object with input_lens and output_lens", _read, _matches)
