"""Results of `vllm bench serve --save-result --save-detailed` and of SGLang's `bench_serving --output-details`.

One JSON object a run; `--append-result` and SGLang write one run a line. `input_lens` and `output_lens` are in order of
sending. Failed requests (an error, or no output) are counted and left out. Requests with `start_times` are replayed at
these. Without them, and with a `max_concurrency` that bound, they are a closed loop. Else arrivals are drawn as the
benchmark draws them: gamma gaps of shape `burstiness`, rescaled so that the last request is sent at n/`request_rate`,
with a rate that grows from `ramp_up_start_rps` to `ramp_up_end_rps`, or all at time 0 if the rate is infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmsched_env.tables.request_table import COLUMNS, RequestTable
from llmsched_env.validation import shown
from llmsched_env.workloads.arrivals import Gamma, Renewal
from llmsched_env.workloads.closed_requests import ClosedRequests
from llmsched_env.workloads.formats.json_reader import Row, number, parsed_lines, tokens
from llmsched_env.workloads.formats.measured import MeasuredCall, closed_loop_starts, replayed
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import FixedRequests, Source, TimelessRequests

_RATE = COLUMNS["predicted_output"]._replace(default=0.0, allowed="a finite number > 0, or inf")
_SECONDS = COLUMNS["arrival"]
_USERS = COLUMNS["client"]._replace(low=1, allowed="an integer >= 1 and <= 1e6")
_OPTIONAL = ("errors", "start_times", "ttfts", "itls")
_BOUND = 0.9  # share of the limit from which on the offered requests in the system reach it
_SGLANG = ("total_output_tokens_retokenized", "random_range_ratio", "accept_length")


def _runs(head: Head) -> list[tuple[Row, str]]:
    """The runs in the file; a line that is no result is not hidden behind the others."""
    if head.document is not None:
        found = [head.document]
    elif head.items is not None:
        found = head.items
    else:
        found = list(parsed_lines(head.path, RowLog(), lambda row: row))
    return [(result, _described(result)) for result in found]


def _described(result: Row) -> str:
    names = ("date", "request_rate", "max_concurrency", "completed")
    return ", ".join(f"{name} {shown(result[name])}" for name in names if result.get(name) is not None) or "no settings"


def _read(head: Head, log: RowLog) -> Source:
    result = _document(head)
    calls = _calls(head, log)
    try:
        rate, users, gaps = _rate(result), _users(result, len(calls)), _gaps(result)
        bound = users is not None and _binds(result, calls, rate, users)
    except CellError as error:
        raise ValueError(f"{head.path}: {error.column} {error.problem}") from None
    if result.get("start_times") is not None:
        return replayed(calls, log, users if bound else None, open_loop=True)
    lengths = np.array([(call.prompt_tokens, call.output_tokens) for call in calls]).T
    table = RequestTable.from_columns(np.zeros(len(calls)), *lengths)
    if bound and users is not None:
        log.closed_loop(users)
        return ClosedRequests(table, users)
    if math.isinf(rate):
        log.says("all sent at once")
        return FixedRequests(table)
    log.says(f"arrivals drawn at {rate:g} requests/s" + (", growing" if isinstance(gaps, _Growing) else ""))
    return TimelessRequests(table, rate, gaps)


def _read_calls(head: Head, log: RowLog) -> list[MeasuredCall]:
    """The requests with their times; start times that are not recorded follow from those of a closed loop."""
    result = _document(head)
    for name in ("ttfts", "itls"):
        if result.get(name) is None:
            raise ValueError(f"{head.path}: {name} must be a list, got nothing; {_how_to_save(result)}")
    calls = _calls(head, log)
    if result.get("start_times") is not None:
        return calls
    try:
        users = _users(result, len(calls))
        if users is None or not _binds(result, calls, _rate(result), users):
            raise CellError("start_times", "must be a list, got nothing, and without a closed loop they are unknown")
    except CellError as error:
        raise ValueError(f"{head.path}: {error.column} {error.problem}") from None
    starts = closed_loop_starts([call.e2el for call in calls], users)
    return [call._replace(start=start) for call, start in zip(calls, starts, strict=True)]


def _calls(head: Head, log: RowLog) -> list[MeasuredCall]:
    """The requests that succeeded, in order of sending."""
    lists = {
        name: values for name in ("input_lens", "output_lens", *_OPTIONAL) if (values := _list(head, name)) is not None
    }
    n = len(lists.get("input_lens", ()))
    for name, values in lists.items():
        if len(values) != n:
            raise ValueError(f"{head.path}: {name} must have one value per request, that is {n}, got {len(values)}")
    calls = []
    for i in range(n):
        row = {name: values[i] for name, values in lists.items()}
        try:
            if row.get("errors") or row.get("output_lens") == 0:
                log.failed()
                continue
            calls.append(_call(row))
        except CellError as error:
            log.bad(head.path, None, f"{error.column}[{i}]", error.problem)
    if not calls:
        raise ValueError(f"{head.path} must hold at least one request that succeeded, got none")
    return calls


def _call(row: Row) -> MeasuredCall:
    start = float(number(row, "start_times", _SECONDS)) if "start_times" in row else 0.0
    ttft = float(number(row, "ttfts", _SECONDS)) if "ttfts" in row else math.nan
    gaps = None
    if "itls" in row:
        if not isinstance(row["itls"], list):
            raise CellError("itls", f"must be a list of seconds, got {shown(row['itls'])}")
        gaps = np.array([number({"itls": gap}, "itls", _SECONDS) for gap in row["itls"]], dtype=float)
    e2el = math.nan if gaps is None else ttft + float(gaps.sum())
    return MeasuredCall(start, tokens(row, "input_lens"), tokens(row, "output_lens"), ttft, e2el, gaps)


def _binds(result: Row, calls: list[MeasuredCall], rate: float, users: int) -> bool:
    """Whether the limit of requests in the system held requests back, by Little's law where latencies are known."""
    if math.isinf(rate) and result.get("ramp_up_strategy") is None:
        return True
    latencies = [call.e2el for call in calls if not math.isnan(call.e2el)]
    if latencies:
        return bool(rate * np.mean(latencies) >= _BOUND * users)
    throughput = number(result, "request_throughput", _RATE) if result.get("request_throughput") else math.inf
    return throughput < _BOUND * rate


def _document(head: Head) -> Row:
    assert head.document is not None  # as `TraceFormat.chosen` says
    return head.document


def _list(head: Head, name: str) -> list[Any] | None:
    values = _document(head).get(name)
    if values is None and name in _OPTIONAL:
        return None
    if not isinstance(values, list):
        hint = f"; {_how_to_save(_document(head))}" if values is None else ""
        raise ValueError(f"{head.path}: {name} must be a list, got {shown(values)}{hint}")
    return values


def _how_to_save(result: Row) -> str:
    option = "--output-details" if any(key in result for key in _SGLANG) else "--save-detailed"
    return f"was the result saved with {option}?"


def _users(result: Row, requests: int) -> int | None:
    """The limit of requests in the system; None if there is none or it cannot have been reached."""
    if result.get("max_concurrency") is None:
        return None
    users = int(number(result, "max_concurrency", _USERS))
    return users if users < requests else None


def _rate(result: Row) -> float:
    """Requests/s on average."""
    if result.get("ramp_up_strategy") is not None:
        return float(1 / np.mean(1 / _Growing.of(result, Gamma(1.0)).rates(1000)))
    value = result.get("request_rate")
    if value is None or (isinstance(value, str | float) and value in ("inf", math.inf)):
        return math.inf
    return float(number({"request_rate": value}, "request_rate", _RATE))


def _gaps(result: Row) -> Renewal:
    given = {"burstiness": 1.0} if result.get("burstiness") is None else result
    burstiness = number(given, "burstiness", _RATE)
    try:
        gaps = Gamma(cv=burstiness**-0.5)
    except ValueError:
        raise CellError("burstiness", f"must be of moderate size, got {burstiness:g}") from None
    return gaps if result.get("ramp_up_strategy") is None else _Growing.of(result, gaps)


@dataclass(frozen=True)
class _Growing(Renewal):
    """Gaps at a rate that grows with the number of the request, linearly or exponentially; of mean 1 overall."""

    gaps_at_rate: Renewal
    first: float
    last: float
    exponential: bool

    @classmethod
    def of(cls, result: Row, gaps: Renewal) -> _Growing:
        strategy = result["ramp_up_strategy"]
        if strategy not in ("linear", "exponential"):
            raise CellError("ramp_up_strategy", f"must be linear or exponential, got {shown(strategy)}")
        low = _RATE._replace(low=_RATE.low if strategy == "exponential" else 0.0, allowed="a finite number >= 0")
        first, last = number(result, "ramp_up_start_rps", low), number(result, "ramp_up_end_rps", _RATE)
        return cls(gaps, float(first), float(last), strategy == "exponential")

    def rates(self, n: int) -> np.ndarray:
        """Requests/s at each of n requests."""
        progress = (np.arange(n) + 0.5) / n
        rates = self.first + (self.last - self.first) * progress
        return self.first * (self.last / self.first) ** progress if self.exponential else rates

    def gaps(self, rng: np.random.Generator, n: int) -> np.ndarray:
        slow = 1 / self.rates(n)
        return np.asarray(self.gaps_at_rate.gaps(rng, n) * slow / slow.mean())

    def first_gap(self, rng: np.random.Generator) -> float:
        return self.gaps_at_rate.first_gap(rng)


def _matches(head: Head) -> bool:
    return "input_lens" in head.first or "request_throughput" in head.first


def _is_sglang(head: Head) -> bool:
    return _matches(head) and any(key in head.first for key in _SGLANG)


def _is_vllm(head: Head) -> bool:
    return _matches(head) and not _is_sglang(head)


VLLM_BENCH = TraceFormat(
    "vllm bench serve", "JSON with input_lens and output_lens", _read, _is_vllm, runs=_runs, read_calls=_read_calls
)
SGLANG_BENCH = TraceFormat(
    "SGLang bench_serving",
    "the same with total_output_tokens_retokenized",
    _read,
    _is_sglang,
    runs=_runs,
    read_calls=_read_calls,
)
