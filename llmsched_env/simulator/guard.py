"""A scheduler under guard, for debugging: its indices are checked in one run, and what it writes in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numba.core.errors import NumbaError

from llmsched_env.compiled import bounds_checked, interpreted
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import EVICTED, LAST_TOKEN, PREEMPTED, REJECTED, RUNNING, WAITING, Requests
from llmsched_env.simulator.world import View

_BY_PRIMITIVES = {"scheduled", "kv_blocks", "published", "computed", "reserved", "swapped", "phase", "preemptions"}
_READ_ONLY = tuple(name for name in Requests._fields if name not in _BY_PRIMITIVES)


class Guard:
    """Composes as a scheduler does, and raises where it leaves its bounds.

    Its `compose` runs as plain Python. After every decision what a scheduler may only read must be as before, and the
    batch must be one that the primitives can make.

    Raises:
        ValueError: the scheduler wrote what it may not, naming it.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.name = scheduler.name
        self.compose = interpreted(scheduler.compose)

    def __call__(self, view: View) -> float:
        before = {name: part.tobytes() for name, part in _parts(view)}
        counts = view.batch.counts_record.copy()[0]
        phase, computed = view.req.phase.copy(), view.req.computed.copy()
        wake = float(self.compose(view))
        wrong = [name for name, part in _parts(view) if part.tobytes() != before[name]]
        wrong += _wrong_in_batch(view, counts, phase, computed)
        if wrong:
            raise ValueError(
                f"scheduler {self.name!r} must write only its own memory and call primitives for all else; at "
                f"{view.clock:g} s it changed {', '.join(wrong)}"
            )
        return wake


def check_bounds(schedulers: tuple[Scheduler, ...], run: Callable[[tuple[Scheduler, ...]], object]) -> None:
    """`run` with every index checked in those of the schedulers that can be compiled.

    Raises:
        IndexError: an index of an array is out of bounds.
    """
    checked = {scheduler.compose: bounds_checked(scheduler.compose) for scheduler in schedulers}
    try:
        run(tuple(replace(scheduler, compose=checked[scheduler.compose]) for scheduler in schedulers))
    except NumbaError:  # one cannot be compiled: in plain Python NumPy checks
        return


def _parts(view: View) -> Iterator[tuple[str, np.ndarray]]:
    """What a scheduler may only read, by name."""
    for name in _READ_ONLY:
        yield f"view.req.{name}", getattr(view.req, name)
    for name in ("waiting", "running", "arrived", "finished", "tasks", "classes", "onward"):
        yield f"view.{name}", getattr(view, name)
    for name in ("total", "block_size", "prefix_caching"):
        yield f"view.kv.{name}", np.asarray(getattr(view.kv, name))
    yield "view.last.requests", view.last.requests
    yield "view.last.tokens", view.last.tokens
    yield "view.law", view.law_record
    yield "view.totals", view.totals_record
    yield "view.own.engine", view.own.engine
    yield "view.mem.params", view.mem.params


def _wrong_in_batch(view: View, before: Any, phase: np.ndarray, computed: np.ndarray) -> list[str]:
    """What of the batch under construction no primitive leaves like this."""
    req, counts, wrong = view.req, view.batch.counts, []
    own = np.arange(view.own.first, view.own.end)
    if view.own.shared:
        own = own[view.own.engine[own] == view.engine]
    if not 0 <= counts.num_seqs <= len(view.batch.requests):
        return ["view.batch.counts.num_seqs"]
    requests = view.batch.requests[: counts.num_seqs]
    if sorted(requests.tolist()) != own[req.scheduled[own] != 0].tolist():
        wrong.append("view.batch.requests or view.req.scheduled")
    elif (req.scheduled[requests] < 0).any() or req.scheduled[requests].sum() != counts.tokens:
        wrong.append("view.req.scheduled or view.batch.counts.tokens")
    limits = counts.seq_limit != before.seq_limit or counts.admit_limit != before.admit_limit
    if limits or counts.token_limit > before.token_limit:
        wrong.append("a limit in view.batch.counts")
    was, now = phase[own], req.phase[own]
    out = np.isin(was, (RUNNING, LAST_TOKEN)) & np.isin(now, (PREEMPTED, EVICTED))
    away = (was == WAITING) & (now == REJECTED)
    if ((was != now) & ~out & ~away).any() or out.sum() != counts.preemptions - before.preemptions:
        wrong.append("view.req.phase")
    if (req.computed[own] != computed[own])[was == RUNNING].any():
        wrong.append("view.req.computed")
    if not view.kv.prefix_caching and view.kv.free + req.kv_blocks[own].sum() != view.kv.total:
        wrong.append("view.kv.free or view.req.kv_blocks")
    return wrong
