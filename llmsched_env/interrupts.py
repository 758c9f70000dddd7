"""Waiting for work in another thread, so that Ctrl-C is obeyed at once: Python obeys it only between its own steps."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
_TICK = 0.1  # s
_STACK = 16 << 20  # bytes; some systems give threads too little for a compiler

_of_thread = threading.local()


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Threads, as many as cores, whose runs stop soon if the block is left by an exception."""
    stop = threading.Event()
    with ThreadPoolExecutor(os.cpu_count(), initializer=_adopt, initargs=(stop,)) as pool:
        try:
            yield pool
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _adopt(stop: threading.Event) -> None:
    _of_thread.stop = stop


def check_stop() -> None:
    """End the work of a thread of `workers` if it is not wanted any more.

    Raises:
        CancelledError: if it is not.
    """
    stop = getattr(_of_thread, "stop", None)
    if stop is not None and stop.is_set():
        raise CancelledError


def beside(call: Callable[[], T], name: str, tick: Callable[[], None], left: list[threading.Thread]) -> T:
    """`call()` on a thread of its own, which is left to itself if waiting for it is interrupted.

    Args:
        call: the work; what it raises is raised here.
        name: of the thread.
        tick: called ten times a second while it works; what it raises ends the waiting.
        left: gets the thread if it is left to itself.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # is raised again where the call is waited for
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name=f"llmsched_env-{name}")
    before = threading.stack_size(_STACK)
    try:
        thread.start()
    finally:
        threading.stack_size(before)
    try:
        while not results and not errors:
            thread.join(_TICK)
            if not results and not errors:
                check_stop()
                tick()
    except BaseException:
        left.append(thread)
        raise
    if errors:
        raise errors[0]
    return results[0]
