"""How many requests must miss their targets on one engine, whatever the scheduler, by batch times and lengths alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.heap import pop, push
from llmsched_env.simulator.request_table import RequestTable
from llmsched_env.theory.latency_bounds import Demand
from llmsched_env.validation import check_integer

WINDOW = 4000
"""Requests that one interval of `least_misses` looks at, unless told."""

_ROUNDING = 1e-9  # relative; deadlines are later by it, so that no miss comes from rounding


def slo_attainment_bound(table: RequestTable, engine: EngineConfig, window: int = WINDOW) -> float:
    """Share of the requests that can meet their own TTFT and TPOT targets at most, whatever the scheduler.

    It is 1 - m/n with m the larger of two numbers of requests that must miss:

    - their TTFT target: the prompt of a request that meets it is computed in batches that start after its arrival and
      end before its deadline a + ttft;
    - or its end: who meets both targets has all its tokens by a + ttft + tpot (o - 1).

    In each, requests that are too long even alone miss for certain, and of the others `least_misses` says how many do.
    Batches follow each other, and each takes at least the sum of the seconds of `Demand` of what it holds: no batch
    does more than v = max b/t_b tokens/s, and attention to a request's own context and its host time come on top. So
    the seconds of requests whose batches all lie in [s, t] add up to t - s at most.

    It holds for every batch-time law, memory limit, number of seats and scheduler, preemption included. Tokens that
    prefix caching may find are not counted. nan without requests.
    """
    if not len(table):
        return float("nan")
    demand = Demand.of(table, engine)
    started = table.arrival + table.ttft_slo
    ended = started + np.where(table.output_tokens > 1, table.tpot_slo, 0.0) * np.maximum(table.output_tokens - 1, 1)
    missed = max(
        _misses(table.arrival, started, demand.prompt_work, demand.prompt_alone, window),
        _misses(table.arrival, ended, demand.work, demand.alone, window),
    )
    return 1.0 - missed / len(table)


def least_misses(arrival: ArrayLike, deadline: ArrayLike, work: ArrayLike, window: int = WINDOW) -> int:
    """Jobs that one server of speed 1 must finish late at least, preemption allowed.

    Take an interval [s, t] and the jobs that arrive in it and are due in it. If all could start at s already, fewer
    would be late, and then Moore's rule is exact: take them by deadline, and whenever one would end late drop the
    longest so far (Moore 1968). Intervals that do not overlap have no job in common, so their numbers add up: the
    largest sum is found from the last arrival backwards.

    Args:
        arrival: seconds, sorted, [n].
        deadline: seconds, [n]; inf: none.
        work: seconds that each needs, >= 0, [n].
        window: jobs that an interval holds at most; more of them cost time and make the number larger, if at all.

    Returns:
        The number; perhaps more must be late.

    Raises:
        ValueError: if the arrays differ in length, or the arrivals are not sorted.
    """
    check_integer("window", window, at_least=1, unit="jobs")
    arrival, deadline, work = (np.ascontiguousarray(values, np.float64) for values in (arrival, deadline, work))
    if not (arrival.shape == deadline.shape == work.shape == (arrival.size,)):
        raise ValueError(
            f"arrival {arrival.shape}, deadline {deadline.shape} and work {work.shape} must be equally long"
        )
    if (np.diff(arrival) < 0).any():
        raise ValueError("arrival must be sorted")
    due = np.flatnonzero(np.isfinite(deadline))
    if not due.size:
        return 0
    arrival, deadline, work = arrival[due], deadline[due], work[due]
    deadline = deadline + _ROUNDING * (1 + np.abs(deadline))
    order = np.argsort(deadline, kind="stable")
    first = np.searchsorted(deadline[order], arrival)
    after = np.searchsorted(arrival, deadline)
    best, heap = np.zeros(due.size + 1, np.int64), np.zeros(due.size, np.int64)
    return int(_most_by_intervals(arrival, deadline, work, -work, order, first, after, window, best, heap))


def _misses(arrival: np.ndarray, deadline: np.ndarray, work: np.ndarray, alone: np.ndarray, window: int) -> int:
    hopeless = arrival + alone > deadline + _ROUNDING * (1 + np.abs(deadline))
    kept = ~hopeless
    return int(hopeless.sum()) + least_misses(arrival[kept], deadline[kept], work[kept], window)


@compiled
def _most_by_intervals(arrival, deadline, work, shortness, order, first, after, window, best, heap):
    """The largest sum of misses of intervals that do not overlap.

    Args:
        arrival: f8[n], sorted, as are jobs.
        deadline: f8[n].
        work: f8[n].
        shortness: f8[n], -work: by it the longest is the first of a heap.
        order: i8[n], jobs by deadline.
        first: i8[n], place in `order` of the first deadline that is not before the arrival of a job.
        after: i8[n], the first job that arrives after the deadline of a job.
        window: jobs of an interval.
        best: i8[n + 1], filled with the sum for the jobs from each on.
        heap: i8[n], room for one.
    """
    n = len(arrival)
    for i in range(n - 1, -1, -1):
        most, size, total, misses, last, start = best[i + 1], 0, 0.0, 0, i, arrival[i]
        for place in range(first[i], n):
            j = order[place]
            if j < i:
                continue
            last = max(last, j)
            push(heap, size, j, shortness)
            size += 1
            total += work[j]
            if start + total > deadline[j]:
                total -= work[pop(heap, size, shortness)]
                size -= 1
                misses += 1
                most = max(most, misses + best[after[j]])
            held = size + misses
            if held >= window:
                break
            if misses == 0 and held == last - i + 1 and last + 1 < n and start + total <= arrival[last + 1]:
                break  # idle before the next arrives: a later interval does as well
        best[i] = most
    return best[0]
