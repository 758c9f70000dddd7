"""Requests of inference-perf (https://github.com/kubernetes-sigs/inference-perf), a JSON array.

The file is `per_request_lifecycle_metrics.json`: `start_time` and `end_time` (s), `info` with `input_tokens`,
`output_tokens` and `output_token_times` (s, the same clock). Requests with an error are counted and left out. Start
times are replayed.
"""

from __future__ import annotations

import math

import numpy as np

from llmsched_env.workloads.formats.json_reader import Row, nested, seconds, tokens
from llmsched_env.workloads.formats.measured import MeasuredCall, replayed
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests


def _read(head: Head, log: RowLog) -> FixedRequests:
    return replayed(_calls(head, log), log)


def _calls(head: Head, log: RowLog) -> list[MeasuredCall]:
    def parse(row: Row) -> MeasuredCall | None:
        if row.get("error"):
            log.failed()
            return None
        start, end, info = seconds(row, "start_time"), seconds(row, "end_time"), nested(row, "info", dict)
        if end < start:
            raise CellError("end_time", f"must be >= start_time ({start}), got {end}")
        lengths = tokens(info, "input_tokens"), tokens(info, "output_tokens", low=0)
        if not lengths[1]:
            log.failed()
            return None
        given = nested(info, "output_token_times", list) if info.get("output_token_times") else []
        times = np.array([seconds({"output_token_times": time}, "output_token_times") for time in given])
        if not len(times):
            return MeasuredCall(start, *lengths, math.nan, end - start)
        if times[0] < start or np.any(np.diff(times) < 0):
            raise CellError("output_token_times", "must not decrease, nor begin before start_time")
        return MeasuredCall(start, *lengths, float(times[0]) - start, float(times[-1]) - start, np.diff(times))

    calls: list[MeasuredCall] = head.rows(log, parse)
    return calls


INFERENCE_PERF = TraceFormat(
    "inference-perf",
    "a JSON array with start_time, end_time and info, as inference-perf writes",
    _read,
    lambda head: {"start_time", "end_time", "info"} <= head.first.keys(),
    read_calls=_calls,
)
