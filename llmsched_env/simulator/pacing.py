"""Compiled loops that a user can interrupt, and that find out when a scheduler does not return.

Python handles Ctrl-C between its own instructions, of which compiled code runs none. So a loop stops after some
thousand decisions (`loop.PAUSED`) and is called again. A rule that is not ours runs on a thread beside the one that
waits for it: there is no other way to go on from a `compose` that never returns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from llmsched_env.interrupts import beside, check_stop
from llmsched_env.simulator.loop import PAUSED

SECONDS_TO_RETURN = 20.0
"""A rule that takes longer for a single decision is taken not to return."""
_SLICE_SECONDS = 0.15
_FIRST_SLICE = 4096  # decisions
_OURS = ("llmsched_env", "baselines")

_left_running: list[threading.Thread] = []


class NeverReturnsError(ValueError):
    """A scheduler or router has been asked and does not answer."""


def is_ours(function: Any) -> bool:
    """Whether a function of a rule is one of this project, which all return."""
    source = getattr(function, "py_func", function)
    return str(getattr(source, "__module__", "")).partition(".")[0] in _OURS


def paced(recording: Any, call: Callable[[], int]) -> int:
    """`call()` until it returns something else than PAUSED, with a pause every fraction of a second.

    Args:
        recording: the record of that name of the world that it advances.
        call: advances it.
    """
    decisions = _FIRST_SLICE
    try:
        while True:
            recording.pause_at = recording.decisions + decisions
            started = time.perf_counter()
            reason = call()
            if reason != PAUSED:
                return reason
            check_stop()
            seconds = time.perf_counter() - started
            decisions = 2 * decisions if seconds < _SLICE_SECONDS else max(1, decisions // 2)
    finally:
        recording.pause_at = 0


def watched(recording: Any, call: Callable[[], int], progress: Callable[[], Any], complaint: Callable[[], str]) -> int:
    """`call()` on a thread of its own, which is left to itself if nothing moves.

    Args:
        recording: as of `paced`.
        call: advances the world.
        progress: something that changes with every decision.
        complaint: says what is wrong if it has not changed for `SECONDS_TO_RETURN`.

    Raises:
        NeverReturnsError: with that text.
    """
    last, since = progress(), time.monotonic()

    def tick() -> None:
        nonlocal last, since
        now = progress()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > SECONDS_TO_RETURN:
            raise NeverReturnsError(complaint())

    recording.pause_at = 0
    try:
        return beside(call, "run", tick, _left_running)
    except BaseException:
        recording.pause_at = 1  # if it is still running and does return, it ends there
        raise
