"""Shortest remaining processing time on one server: the least mean time in system that any schedule has."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import ArrayLike

from llmsched_env.validation import check_number


def srpt_flow_times(arrival: ArrayLike, work: ArrayLike) -> np.ndarray:
    """Times in system under preemptive SRPT on a server of speed 1, ties to the earlier request.

    No schedule of one server, preemptive or not, has a smaller sum (Schrage 1968). Every event is handled once:
    O(n log n) steps.

    Args:
        arrival: seconds, sorted, [n].
        work: seconds of service that each needs, >= 0, [n].

    Returns:
        f8[n] seconds.
    """
    arrivals, work = np.asarray(arrival, np.float64).tolist(), np.asarray(work, np.float64).tolist()
    finish = np.zeros(len(arrivals))
    present: list[tuple[float, int]] = []  # (work left, request), the least first
    clock = 0.0
    for i, now in enumerate([*arrivals, np.inf]):
        while present:
            left, k = present[0]
            if clock + left > now:
                heapq.heapreplace(present, (left - (now - clock), k))  # still the least: only it has shrunk
                break
            clock += left
            finish[k] = clock
            heapq.heappop(present)
        clock = max(clock, now)
        if i < len(arrivals):
            heapq.heappush(present, (work[i], i))
            clock = now
    return finish - np.asarray(arrivals)


def mg1_srpt(rate: float, work: ArrayLike, speed: float = 1.0) -> float:
    """Mean time in system of an M/G/1 queue under SRPT, by the formula of Schrage and Miller (1966).

    The service times are those of the sample, each equally likely. With rho(x) the load of services up to x, a request
    of x seconds of service takes

        rate (E[X^2; X <= x] + x^2 P(X > x)) / (2 (1 - rho(x)) (1 - rho(x-)))   +   integral_0^x dt / (1 - rho(t))

    to wait and to be served. rho(x-) leaves out services of exactly x, which do not get ahead of it: the sample has
    atoms.

    Args:
        rate: requests/s, Poisson.
        work: a sample of what requests need, > 0, [n]; tokens, say.
        speed: of the server, work per second.

    Returns:
        Seconds; inf if the server is not fast enough.

    Raises:
        ValueError: for a rate or speed that is not above 0, or an empty sample or one with a value that is not.
    """
    rate, speed = check_number("rate", rate, above=0, unit="requests/s"), check_number("speed", speed, above=0)
    sizes = np.sort(np.asarray(work, np.float64))
    if not (sizes.ndim == 1 and sizes.size and sizes[0] > 0 and np.isfinite(sizes[-1])):
        raise ValueError(f"work must be a sample of finite numbers > 0, got {work!r}")
    x, counts = np.unique(sizes / speed, return_counts=True)
    share = counts / counts.sum()
    rho = rate * np.cumsum(share * x)
    if rho[-1] >= 1:
        return np.inf
    below = np.concatenate(([0.0], rho[:-1]))
    squares = np.cumsum(share * x**2) + x**2 * (1 - np.cumsum(share))
    waits = rate * squares / (2 * (1 - rho) * (1 - below))
    serves = np.cumsum(np.diff(x, prepend=0.0) / (1 - below))
    return float(share @ (waits + serves))
