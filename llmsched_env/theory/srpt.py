"""Shortest remaining processing time (SRPT) on one server, which minimises the mean time in system."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import ArrayLike

from llmsched_env.validation import check_number


def srpt_flow_times(arrival: ArrayLike, work: ArrayLike) -> np.ndarray:
    """Times in system under preemptive SRPT on a server of speed 1; ties go to the earlier request.

    No schedule of one server, preemptive or not, has a smaller sum (Schrage 1968). It takes O(n log n) steps.

    Args:
        arrival: seconds, sorted, [n].
        work: seconds of service, >= 0, [n].

    Returns:
        f8[n] seconds.
    """
    arrivals: list[float] = np.asarray(arrival, np.float64).tolist()
    works: list[float] = np.asarray(work, np.float64).tolist()
    finish = np.zeros(len(arrivals))
    present: list[tuple[float, int]] = []  # heap of (work left, request)
    clock = 0.0
    for i, now in enumerate([*arrivals, np.inf]):
        while present:
            left, k = present[0]
            if clock + left > now:
                heapq.heapreplace(present, (left - (now - clock), k))  # it stays the smallest: only it has shrunk
                break
            clock += left
            finish[k] = clock
            heapq.heappop(present)
        clock = max(clock, now)
        if i < len(arrivals):
            heapq.heappush(present, (works[i], i))
            clock = now
    return np.asarray(finish - np.asarray(arrivals))


def mg1_srpt(rate: float, work: ArrayLike, speed: float = 1.0) -> float:
    """Mean time in system of an M/G/1 queue under SRPT, by the formula of Schrage and Miller (1966).

    Service times are drawn from the sample with equal probability. With rho(x) the load of services up to x, the mean
    time in system (waiting and service) of a request of x seconds of service is

        rate (E[X^2; X <= x] + x^2 P(X > x)) / (2 (1 - rho(x)) (1 - rho(x-)))   +   integral_0^x dt / (1 - rho(t))

    rho(x-) excludes services of exactly x, which do not overtake it: a sample has atoms.

    Args:
        rate: requests/s, Poisson.
        work: a sample of the work of requests, > 0, [n], in any unit, such as tokens.
        speed: work per second of the server.

    Returns:
        Seconds; inf if the load is 1 or more.

    Raises:
        ValueError: rate, speed or a value of the sample is not above 0, or the sample is empty.
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
