"""Upper bound on SLO attainment on one engine for any scheduler, from batch times and lengths alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from llmsched_env.compiled import compiled
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.ordering import pop, push
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.theory.latency_bounds import Demand
from llmsched_env.validation import check_integer

WINDOW = 4000
"""Default limit on the requests in one interval of `least_misses`."""

_ROUNDING = 1e-9  # relative; deadlines are extended by it, so that rounding causes no miss


def slo_attainment_bound(table: RequestTable, engine: EngineConfig, window: int = WINDOW) -> float:
    """Largest share of the requests that can meet their own TTFT and TPOT targets, for any scheduler; nan if empty.

    It is 1 - m/n, with m the larger of two lower bounds on the number of misses:

    - of the TTFT target: if it is met, the prompt is computed in batches that start after the arrival a and end before
      the deadline a + ttft;
    - of both targets: if they are met, the last token is out by a + ttft + tpot (o - 1).

    In each, requests that are too long even on an idle engine miss for certain, and `least_misses` counts the misses
    among the others. Batches run one after another, and each takes at least the sum of the `Demand` of what it holds:
    no batch processes more than v = max b/t_b tokens/s, and attention to a request's own context and its host time are
    added. So the demands of requests whose batches all lie in [s, t] sum to at most t - s.

    The bound holds for every batch-time law, memory limit, number of request slots and scheduler, including preemption.
    Tokens that may hit the prefix cache are not counted.
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
    """Lower bound on the number of jobs that one server of speed 1 finishes late, preemption allowed.

    Take an interval [s, t] and the jobs that arrive in it and are due in it. If all of them could start at s, no more
    would be late, and Moore's rule is exact: take the jobs by deadline, and whenever one would end late, drop the
    longest so far (Moore 1968). Disjoint intervals have no job in common, so their numbers add up. The largest sum is
    found by dynamic programming from the last arrival backwards.

    Args:
        arrival: seconds, sorted, [n].
        deadline: seconds, [n]; inf: none.
        work: seconds of service, >= 0, [n].
        window: most jobs in an interval; a larger one takes longer and may tighten the bound.

    Returns:
        The bound.

    Raises:
        ValueError: the arrays differ in length, or the arrivals are not sorted.
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
def _most_by_intervals(
    arrival: np.ndarray,
    deadline: np.ndarray,
    work: np.ndarray,
    shortness: np.ndarray,
    order: np.ndarray,
    first: np.ndarray,
    after: np.ndarray,
    window: int,
    best: np.ndarray,
    heap: np.ndarray,
) -> int:
    """The largest sum of misses over disjoint intervals.

    Args:
        arrival: f8[n], sorted.
        deadline: f8[n].
        work: f8[n].
        shortness: f8[n], -work, the key that puts the longest job on top of the heap.
        order: i8[n], jobs sorted by deadline.
        first: i8[n], index in `order` of the first deadline that is not before the arrival of each job.
        after: i8[n], the first job that does not arrive before the deadline of each job.
        window: most jobs in an interval.
        best: i8[n + 1], zeros; filled with the largest sum over the jobs from each one on.
        heap: i8[n], memory for the heap.
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
                break  # idle before the next arrival: a later interval is as good
        best[i] = most
    most_of_all: int = best[0]
    return most_of_all
