"""Rows of a run to numbers: latency, throughput, goodput, queue lengths and backlog.

Names are those of `vllm bench serve`. Times are float64 seconds; `_ms` in a name means milliseconds. The functions take
rows, or any object with the attributes of `RunRows`. `records` imports this module, never the reverse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.slo import SLO


class CommonRows(Protocol):
    """The rows that every run has.

    Attributes:
        requests: `REQUEST_DTYPE` records.
        batches: `BATCH_DTYPE` records, or None if they were not recorded.
        token_gaps: f8[n, 3], see `Result.token_gaps`.
        end: clock in s at which the run stopped.
        stalled: whether the run stopped because no future event existed while requests were unfinished.
    """

    @property
    def requests(self) -> np.recarray: ...
    @property
    def batches(self) -> np.recarray | None: ...
    @property
    def token_gaps(self) -> np.ndarray: ...
    @property
    def end(self) -> float: ...
    @property
    def stalled(self) -> bool: ...


class RunRows(CommonRows, Protocol):
    """What the numbers of a run on one engine are computed from; `Result` is one.

    Attributes:
        engine: the machine that was simulated.
        drained: whether no request was left in the system at the end.
    """

    @property
    def engine(self) -> EngineConfig: ...
    @property
    def drained(self) -> bool: ...


def summary(result: RunRows, slo: SLO | None = None, window: tuple[float, float] | None = None) -> dict[str, float]:
    """Throughput, latency and goodput of one run, under the names of `vllm bench serve`.

    Latencies are those of the requests that arrived in the window [t0, t1): `ttft` of all with a first token, `tpot`
    (time per output token after the first, one value a request) and `e2el` of all that finished. `itl` pools the
    inter-token gaps that ended in (t0, t1]. Throughputs count the requests that finished in (t0, t1], with all of their
    tokens, over t1 - t0. A request is good if it finished and every latency is within its limit (tpot is 0 for one
    output token). `request_goodput` is the rate of good requests among those that finished in the window.
    `slo_attainment` is the fraction of good requests among those that arrived in it, so unfinished, rejected and
    abandoned requests count as missed. Both are nan if no limit is finite.

    If the run stopped with unfinished requests, the finished ones are a biased sample. `mean_e2el_ms` is then Little's
    estimate: the integral of the number in system over the window, divided by the arrivals in it.

    Args:
        result: the run.
        slo: limits for all requests; None: each request's own `ttft_slo` and `tpot_slo`.
        window: (t0, t1) in s; None: all arrivals, from 0 to the end of the run.

    Returns:
        The numbers by name:

        - as in vLLM: completed, duration (s), total_input_tokens, total_output_tokens, request_throughput,
          output_throughput, total_token_throughput (1/s), mean_/median_/std_/p90_/p95_/p99_ of ttft_ms, tpot_ms,
          itl_ms and e2el_ms, request_goodput (1/s), slo_attainment;
        - of the requests that arrived in the window: num_requests, rejected, abandoned, preemptions, preemption_rate
          (per request), recomputed_tokens (lost to preemptions);
        - mean_num_in_system (time average);
        - of the batches that started in the window: prefix_hit_rate (tokens found in the prefix cache, over these and
          the prefilled ones), mean_kv_usage (share of KV blocks in use, weighted by time), max_kv_usage.

        Numbers that do not exist are nan: statistics of no values, those of batches that were not recorded, and KV
        usage with unlimited memory.

    Raises:
        ValueError: if the window is empty, or reaches past the end of a run that stopped with requests unfinished.
    """
    t0, t1 = _checked_window(result, window)
    rows = result.requests
    arrived = np.ones(len(rows), dtype=bool) if window is None else (rows.arrival >= t0) & (rows.arrival < t1)
    finished = rows.status == "finished"
    completed = finished & (rows.finish > t0) & (rows.finish <= t1)
    duration = t1 - t0

    ttft, tpot, e2el = latencies_by_row(rows)
    several = rows.output_tokens > 1
    gaps = result.token_gaps
    gaps = gaps[(gaps[:, 0] > t0) & (gaps[:, 0] <= t1)]
    input_tokens = int(rows.prompt_tokens[completed].sum())
    output_tokens = int(rows.output_tokens[completed].sum())
    request_seconds = integral_in_system(rows, t0, t1)
    good = within_limits(rows, slo)

    numbers = {
        "num_requests": np.count_nonzero(arrived),
        "completed": np.count_nonzero(completed),
        "duration": duration,
        "total_input_tokens": input_tokens,
        "total_output_tokens": output_tokens,
        "request_throughput": _ratio(np.count_nonzero(completed), duration),
        "output_throughput": _ratio(output_tokens, duration),
        "total_token_throughput": _ratio(input_tokens + output_tokens, duration),
        **_statistics("ttft", ttft[arrived & ~np.isnan(ttft)]),
        **_statistics("tpot", tpot[arrived & finished & several]),
        **_statistics("itl", gaps[:, 1], gaps[:, 2]),
        **_statistics("e2el", e2el[arrived & finished]),
        "request_goodput": math.nan if good is None else _ratio(np.count_nonzero(good & completed), duration),
        "slo_attainment": math.nan if good is None else _ratio(np.count_nonzero(good & arrived), arrived.sum()),
        "rejected": np.count_nonzero(arrived & (rows.status == "rejected")),
        "abandoned": np.count_nonzero(arrived & (rows.status == "abandoned")),
        "preemptions": rows.preemptions[arrived].sum(),
        "preemption_rate": _ratio(rows.preemptions[arrived].sum(), arrived.sum()),
        "recomputed_tokens": rows.recomputed[arrived].sum(),
        **_memory_numbers(result, t0, t1),
        "mean_num_in_system": _ratio(request_seconds, duration),
    }
    if not result.drained:
        present = np.count_nonzero(arrived & (rows.status != "rejected"))
        numbers["mean_e2el_ms"] = 1e3 * _ratio(request_seconds, present)
    return {name: float(value) for name, value in numbers.items()}


def latencies(requests: np.recarray) -> dict[str, np.ndarray]:
    """TTFT, TPOT and E2E latency in s of the requests that have them, under the keys ttft, tpot and e2el."""
    ttft, tpot, e2el = latencies_by_row(requests)
    finished = requests.status == "finished"
    return {
        "ttft": ttft[~np.isnan(ttft)],
        "tpot": tpot[finished & (requests.output_tokens > 1)],
        "e2el": e2el[finished],
    }


def within_limits(
    requests: np.recarray, slo: SLO | None = None, kinds: Sequence[str] = ("ttft", "tpot", "e2el")
) -> np.ndarray | None:
    """Whether each request finished within its limits of these kinds; None where there is no limit at all.

    Args:
        requests: rows of a run.
        slo: limits for all requests; None: each request's own `ttft_slo` and `tpot_slo`.
        kinds: the latencies to check.
    """
    own = {"ttft": requests.ttft_slo, "tpot": requests.tpot_slo, "e2el": math.inf}
    limits = {kind: own[kind] if slo is None else getattr(slo, kind) for kind in kinds}
    if not any(np.isfinite(limit).any() for limit in limits.values()):
        return None
    good: np.ndarray = requests.status == "finished"
    for kind, latency in zip(own, latencies_by_row(requests), strict=True):
        if kind in limits:
            good = good & (latency <= limits[kind])
    return good


def number_in_system(requests: np.recarray, t: float | np.ndarray) -> int | np.ndarray:
    """Requests present at time(s) `t` in s: arrival <= t < left.

    Returns:
        An int for a scalar `t`, else i8 of the shape of `t`.
    """
    left = np.sort(requests.left)  # nan goes last: never reached
    present = np.searchsorted(np.sort(requests.arrival), t, "right") - np.searchsorted(left, t, "right")
    return int(present) if np.ndim(t) == 0 else present


def integral_in_system(requests: np.recarray, t0: float, t1: float) -> float:
    """Request-seconds spent in the system within [t0, t1]: the exact integral of `number_in_system`."""
    left = np.where(np.isnan(requests.left), t1, np.minimum(requests.left, t1))
    return float(np.maximum(left - np.maximum(requests.arrival, t0), 0.0).sum())


def backlog(result: RunRows, t: float | np.ndarray) -> int | np.ndarray:
    """Tokens of work present at time(s) `t` in s.

    A request of s prompt and o output tokens adds s + o - 1 tokens at its arrival, or s + o if the engine's
    `first_token` is "separate". A rejected or abandoned request removes its uncomputed tokens when it leaves. A batch
    removes its tokens when it ends. At the start of a batch, tokens lost to its preemptions are added, and tokens found
    in the prefix cache by the requests it admits are removed.

    Returns:
        An int for a scalar `t`, else i8 of the shape of `t`.

    Raises:
        ValueError: if the run was recorded without batches.
    """
    batches = result.batches
    if batches is None:
        raise ValueError('backlog needs the rows of the batches; simulate with record="batches"')
    requests, work = result.requests, offered_work(result)
    ends = batches.start + batches.duration
    # Batches that never ended have no row: their preemptions and prefix hits count from the last end on.
    changed_at = np.append(batches.start, ends.max(initial=0.0))
    changed = batches.recomputed - batches.prefix_hit
    changed = np.append(changed, (requests.recomputed - requests.prefix_hit).sum() - changed.sum())
    tokens = (
        running_total(requests.arrival, work, t)
        - running_total(requests.left, work - requests.computed, t)
        - running_total(ends, batches.prefill_tokens + batches.decode_tokens, t)
        + running_total(changed_at, changed, t)
    )
    return int(tokens) if np.ndim(t) == 0 else tokens


def offered_work(result: RunRows) -> np.ndarray:
    """Tokens that each request brings."""
    rows = result.requests
    work: np.ndarray = rows.prompt_tokens + rows.output_tokens - (result.engine.first_token == "with_prefill")
    return work


def running_total(times: np.ndarray, amounts: np.ndarray, t: float | np.ndarray) -> np.ndarray:
    """Sum of the amounts whose time is at or before `t`; times that are nan are never reached."""
    order = np.argsort(times, kind="stable")
    total = np.concatenate(([0], np.cumsum(amounts[order])))
    return total[np.searchsorted(times[order], t, "right")]


def weighted_percentile(values: np.ndarray, counts: np.ndarray, percentile: float) -> float:
    """Equal to `np.percentile(np.repeat(values, counts), percentile)`, without expanding; nan if all counts are 0."""
    order = np.argsort(values)
    last = np.cumsum(counts[order])  # of the expanded list, values[order[i]] fills the places below last[i]
    if not len(last) or last[-1] == 0:
        return math.nan
    place = (last[-1] - 1) * (percentile / 100)
    below = math.floor(place)
    neighbours = values[order[np.searchsorted(last, [below, min(below + 1, last[-1] - 1)], "right")]]
    return float(np.quantile(neighbours, place - below))


def _checked_window(result: RunRows, window: tuple[float, float] | None) -> tuple[float, float]:
    if window is None:
        return 0.0, float(result.end)
    t0, t1 = window
    if not 0 <= t0 < t1 < math.inf:
        raise ValueError(f"window={window!r}; must be (t0, t1) in s with 0 <= t0 < t1 < inf")
    if t1 > result.end and not (result.drained or result.stalled):
        raise ValueError(f"window={window!r}; must end by {result.end!r} s, where the run stopped unfinished")
    return t0, t1


def latencies_by_row(rows: np.recarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """TTFT, TPOT and E2E latency of every row in s; nan where not reached, TPOT 0 for one output token."""
    tpot = (rows.finish - rows.first_token) / np.maximum(rows.output_tokens - 1, 1)
    tpot[(rows.output_tokens == 1) & ~np.isnan(rows.finish)] = 0.0
    return rows.first_token - rows.arrival, tpot, rows.finish - rows.arrival


def _statistics(name: str, seconds: np.ndarray, counts: np.ndarray | None = None) -> dict[str, float]:
    counts = np.ones(len(seconds)) if counts is None else counts
    total = counts.sum()
    mean = _ratio(seconds @ counts, total)
    return {
        f"mean_{name}_ms": 1e3 * mean,
        f"median_{name}_ms": 1e3 * weighted_percentile(seconds, counts, 50),
        f"std_{name}_ms": 1e3 * math.sqrt(_ratio(float((seconds - mean) ** 2 @ counts), total)),
        **{f"p{p}_{name}_ms": 1e3 * weighted_percentile(seconds, counts, p) for p in (90, 95, 99)},
    }


def _memory_numbers(result: RunRows, t0: float, t1: float) -> dict[str, float]:
    """What the batches that started in [t0, t1) say about the KV cache."""
    hit_rate = mean = most = math.nan
    if result.batches is not None:
        batches = result.batches[(result.batches.start >= t0) & (result.batches.start < t1)]
        hits = batches.prefix_hit.sum()
        hit_rate = _ratio(hits, hits + batches.prefill_tokens.sum())
        if result.engine.kv_blocks is not None and len(batches):
            usage = batches.kv_blocks_used / result.engine.kv_blocks
            mean, most = _ratio(usage @ batches.duration, batches.duration.sum()), usage.max()
    return {"prefix_hit_rate": hit_rate, "mean_kv_usage": mean, "max_kv_usage": most}


def _ratio(amount: float | np.number, total: float | np.number) -> float:
    return float(amount) / float(total) if total > 0 else math.nan
