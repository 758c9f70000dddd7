"""Recorded times to seconds of a run: their unit, and where they are counted from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llmsched_env.workloads.formats.row_log import RowLog

PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_UNIX = (6e8, 4.2e9)  # s since 1970, from 1989 to 2103; no two units have numbers in common
_LATE = 3600.0  # s; a first arrival after this and after the length of the run is no pause, but another clock


def unix_unit(time: float) -> str | None:
    """Unit in which a number is a time since 1970, None if it is none in any unit."""
    for unit, per_second in PER_SECOND.items():
        if _UNIX[0] <= time / per_second <= _UNIX[1]:
            return unit
    return None


class Clock(NamedTuple):
    """How recorded times become seconds of a run.

    Attributes:
        origin: the recorded time that is 0 s.
        per_second: recorded units in a second.
        words: what was recognised.
    """

    origin: float
    per_second: float
    words: str


def clock_of(first: float, last: float, unit: str, asked: str | None = None) -> Clock:
    """The clock of recorded times from `first` to `last`.

    Unix times are recognised, with their unit, by their size. They, and times of a clock that is not that of the run
    (the first is later than an hour and than the run is long), are counted from the first.

    Args:
        first: the earliest time, as recorded.
        last: the latest one.
        unit: their unit if they are not since 1970.
        asked: their unit as the caller says; None: it is recognised.
    """
    since_1970 = unix_unit(first)
    unit = asked or since_1970 or unit
    per_second = PER_SECOND[unit]
    if since_1970 is None and first / per_second <= max(_LATE, (last - first) / per_second):
        return Clock(0.0, per_second, WORDS[unit])
    return Clock(first, per_second, f"{'Unix times in ' if since_1970 else ''}{WORDS[unit]}, counted from the first")


def run_times(times: np.ndarray, log: RowLog, unit: str, asked: str | None = None) -> np.ndarray:
    """Seconds of a run, f8[n], from recorded times f8[n] in any order, not empty; see `clock_of`."""
    clock = clock_of(float(times.min()), float(times.max()), unit, asked)
    log.says(clock.words)
    if clock.origin == 0:
        return times if clock.per_second == 1 else times / clock.per_second
    return np.round((times - clock.origin) / clock.per_second, 6)  # floats since 1970 have noise below a microsecond
