"""Growth of the backlog of a run, and whether a system is stable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from llmsched_env.intervals import mean_interval
from llmsched_env.results.metrics import RunRows, backlog, offered_work, running_total

STABILITY_THRESHOLD = 0.05
"""Backlog growth as a fraction of the offered tokens per second, below which a system is called stable."""

_SLOPE_POINTS = 400
_SINGLE_RUN_BLOCKS = 5


def backlog_slope(result: RunRows, start: float, stop: float) -> float:
    """Growth of the backlog in tokens/s: least-squares line through equally spaced times in [start, stop], in s.

    Raises:
        ValueError: if `start` is not before `stop`, or the run was recorded without batches.
    """
    times = _slope_times("backlog_slope", start, stop)
    return _slope(times, np.asarray(backlog(result, times)))


def service_slope(result: RunRows, start: float, stop: float) -> float:
    """Work done in tokens/s: growth of the tokens that arrived, less that of the backlog, fitted as `backlog_slope`.

    While the engine is never short of work, it is the service rate of the scheduler without the noise of arrivals.

    Raises:
        ValueError: if `start` is not before `stop`, or the run was recorded without batches.
    """
    times = _slope_times("service_slope", start, stop)
    arrived = running_total(result.requests.arrival, offered_work(result), times)
    return _slope(times, arrived - backlog(result, times))


class Stability(NamedTuple):
    """Verdict on a system, with the growth of its backlog as a fraction of the offered tokens per second."""

    verdict: Literal["stable", "unstable", "undecided"]
    slope: float
    half_width: float


def stability(results: Sequence[RunRows], threshold: float = STABILITY_THRESHOLD) -> Stability:
    """Whether the backlog keeps growing, from independent replications of one scheduler on one workload.

    The measure is the slope of the backlog over the second half of the arrivals, divided by the offered tokens per
    second. 0 means that all offered work is done, 0.2 that a fifth of it piles up. The 95 %
    t-interval over the replications decides: "unstable" if it lies above `threshold`, "stable" if below, else
    "undecided". A single run (a fixed trace) is cut into five blocks of its second half in place of replications.
    A run that stalled is unstable whatever its slope.

    Args:
        results: runs that differ in their seed only, recorded with `record="batches"`.
        threshold: fraction of the offered tokens per second; near critical load short runs stay undecided.

    Raises:
        ValueError: if `results` is empty, or a run was recorded without batches.
    """
    if not results:
        raise ValueError("stability: results is empty; at least one run is needed")
    blocks = _SINGLE_RUN_BLOCKS if len(results) == 1 else 1
    slope, half_width = mean_interval([s for result in results for s in _normalised_slopes(result, blocks)])
    if any(result.stalled for result in results) or slope - half_width > threshold:
        return Stability("unstable", slope, half_width)
    return Stability("stable" if slope + half_width < threshold else "undecided", slope, half_width)


def _slope_times(name: str, start: float, stop: float) -> np.ndarray:
    if not start < stop:
        raise ValueError(f"{name}: start={start!r} must be before stop={stop!r}")
    return np.linspace(start, stop, _SLOPE_POINTS)


def _slope(times: np.ndarray, values: np.ndarray) -> float:
    """Slope of the least-squares line."""
    offset = times - times.mean()
    return float(offset @ values / (offset @ offset))


def _normalised_slopes(result: RunRows, blocks: int) -> list[float]:
    """Backlog slopes in equal blocks of the second half of the arrivals, over the offered tokens per second."""
    rows = result.requests
    first, last = (rows.arrival[0], rows.arrival[-1]) if len(rows) else (0.0, 0.0)
    if not first < last:
        return [math.nan] * blocks
    offered = offered_work(result).sum() / (last - first)
    edges = np.linspace((first + last) / 2, last, blocks + 1)
    return [backlog_slope(result, a, b) / offered for a, b in zip(edges[:-1], edges[1:], strict=True)]
