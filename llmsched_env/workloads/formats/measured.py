"""Requests as a benchmark or a gateway measured them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_calls import TraceCall, table_of
from llmsched_env.workloads.sources import FixedRequests

_SAME = 0.02  # s between the end of a request and the next one of a user in a closed loop
_MOST = 0.9  # share of requests sent that soon after an end, from which on the run was a closed loop


class MeasuredCall(NamedTuple):
    """One request.

    Attributes:
        start: seconds, when it was sent; any clock.
        prompt_tokens: tokens.
        output_tokens: tokens.
        ttft: seconds from start to the first token, nan if it was not measured.
        e2el: seconds from start to the last token, nan if it was not measured.
        gaps: f8, seconds between its tokens; None if they were not recorded.
        session: key of its session, None for none.
        client: key of its client, None if there is only one.
    """

    start: float
    prompt_tokens: int
    output_tokens: int
    ttft: float = math.nan
    e2el: float = math.nan
    gaps: np.ndarray | None = None
    session: Hashable = None
    client: Hashable = None


def replayed(
    calls: Sequence[MeasuredCall], log: RowLog, users: int | None = None, open_loop: bool = False
) -> FixedRequests:
    """The requests at the times at which they were sent, counted from the first.

    Args:
        calls: the requests, not empty.
        log: is told of a closed loop.
        users: requests that the benchmark kept in the system; None: they are recognised by the times.
        open_loop: the benchmark sent at a rate or at given times, so nothing is to be recognised.
    """
    first = min(call.start for call in calls)
    log.says("start times counted from the first")
    users = users or (None if open_loop else closed_loop_of(calls))
    if users is not None:
        log.closed_loop(users)
    return FixedRequests(
        table_of(
            [
                TraceCall(
                    round(call.start - first, 6), call.prompt_tokens, call.output_tokens, call.session, call.client
                )
                for call in calls
            ]
        )
    )


def closed_loop_of(calls: Sequence[MeasuredCall]) -> int | None:
    """Users of the closed loop in which requests were sent, if each was sent when another ended; None if not so."""
    known = sorted((call.start, call.start + call.e2el) for call in calls if not math.isnan(call.e2el))
    if len(known) < len(calls) or len(known) < 3:
        return None
    ends: list[float] = []
    soon, users = 0, 0
    for start, end in known:
        while ends and ends[0] < start - _SAME:
            heapq.heappop(ends)
        if ends and ends[0] <= start + _SAME and len(ends) == users:
            heapq.heappop(ends)
            soon += 1
        heapq.heappush(ends, end)
        users = max(users, len(ends))
    later = len(known) - users
    return users if later >= max(2, users) and soon >= _MOST * later else None


def closed_loop_starts(latencies: Sequence[float], users: int) -> list[float]:
    """Start times in seconds of requests that a closed loop sent in this order, by how long each took."""
    free = [0.0] * users
    starts = []
    for latency in latencies:
        starts.append(heapq.heappop(free))
        heapq.heappush(free, starts[-1] + latency)
    return starts
