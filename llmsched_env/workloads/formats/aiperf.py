"""Records of NVIDIA AIPerf (https://github.com/ai-dynamo/aiperf), `profile_export.jsonl`, JSON lines.

A line is one request: `metadata` with `request_start_ns`, `metrics` as pairs of value and unit. Requests of the warm-up
are left out; those that failed or were cancelled are counted. Start times are replayed. Whether they come from a closed
loop is in the settings (`input_config` of the file `*_aiperf.json` next to it); without that file it is recognised by
the times.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmsched_env.files import read_json
from llmsched_env.tables.request_table import COLUMNS
from llmsched_env.workloads.formats.clock import PER_SECOND
from llmsched_env.workloads.formats.json_reader import Row, label, nested, number, seconds, tokens
from llmsched_env.workloads.formats.measured import MeasuredCall, replayed
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests

_AT_TIMES = ("poisson", "gamma", "constant", "user_centric", "fixed_schedule")  # types of phases in the settings


def _read(head: Head, log: RowLog) -> FixedRequests:
    users, open_loop = _settings(head)
    return replayed(_calls(head, log), log, users, open_loop)


def _calls(head: Head, log: RowLog) -> list[MeasuredCall]:
    def parse(row: Row) -> MeasuredCall | None:
        about = nested(row, "metadata", dict)
        if about.get("benchmark_phase", "profiling") != "profiling":
            return None
        if row.get("error") or about.get("was_cancelled"):
            log.failed()
            return None
        metrics = nested(row, "metrics", dict)
        start = seconds(about, "request_start_ns", per_second=1e9)
        end = seconds(about, "request_end_ns", per_second=1e9)
        if end < start:
            raise CellError("request_end_ns", f"must be >= request_start_ns, got {about['request_end_ns']}")
        ttft = _seconds(metrics, "time_to_first_token")
        gaps = _seconds(metrics, "inter_chunk_latency")
        return MeasuredCall(
            start,
            tokens(_pair(metrics, "input_sequence_length"), "value"),
            tokens(_pair(metrics, "output_sequence_length"), "value"),
            math.nan if ttft is None else float(ttft),
            end - start,
            None if gaps is None else np.atleast_1d(np.asarray(gaps, float)),
            session=label(about, "x_correlation_id") or label(about, "conversation_id"),
        )

    calls: list[MeasuredCall] = head.rows(log, parse)
    return calls


def _pair(metrics: Row, name: str) -> Row:
    try:
        pair: Row = nested(metrics, name, dict)
        return pair
    except CellError as error:
        raise CellError(f"metrics.{name}", error.problem) from None


def _seconds(metrics: Row, name: str) -> Any:
    """Seconds of a metric, a number or a list of them; None if it is missing."""
    if metrics.get(name) is None:
        return None
    pair = _pair(metrics, name)
    unit = {"sec": "s"}.get(str(pair.get("unit")), str(pair.get("unit")))
    if unit not in PER_SECOND:
        raise CellError(f"metrics.{name}.unit", f"must be one of {', '.join(PER_SECOND)}, got {unit!r}")
    values = pair["value"] if isinstance(pair.get("value"), list) else [pair.get("value")]
    times = [number({"value": value}, "value", COLUMNS["arrival"]) / PER_SECOND[unit] for value in values]
    return times if isinstance(pair.get("value"), list) else times[0]


def _settings(head: Head) -> tuple[int | None, bool]:
    """Users of the closed loop, None for none; and whether the settings say that requests were sent at a rate."""
    path = head.path.with_name(f"{head.path.stem}_aiperf.json")
    if not path.is_file():
        return None, False
    settings = read_json(path)
    found = dict(_leaves(settings.get("input_config") if isinstance(settings, dict) else None))
    if found.get("request_rate") or found.get("fixed_schedule") or found.get("type") in _AT_TIMES:
        return None, True
    users = found.get("concurrency")
    return (users, False) if type(users) is int and users >= 1 else (None, False)


def _leaves(value: Any, depth: int = 6) -> list[tuple[str, Any]]:
    """The settings of nested objects and lists by their last name."""
    if depth and isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item, depth - 1)]
    if not depth or not isinstance(value, dict):
        return []
    below = [leaf for item in value.values() for leaf in _leaves(item, depth - 1)]
    return [*below, *((key, item) for key, item in value.items() if not isinstance(item, dict | list))]


AIPERF = TraceFormat(
    "AIPerf",
    "JSON lines with metadata and metrics, as AIPerf writes",
    _read,
    lambda head: isinstance(head.first.get("metadata"), dict) and "metrics" in head.first,
    read_calls=_calls,
)
