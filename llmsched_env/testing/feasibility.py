"""Feasibility of every batch: the constraints of the model, the limits of engine and scheduler, and times."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from llmsched_env.results.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.testing.run_history import RunHistory, history_of, kv_blocks
from llmsched_env.testing.violation import Violation


class BatchLimits(NamedTuple):
    """Limits of a batch; infinite: none.

    Attributes:
        tokens: in a batch.
        requests: in a batch.
        running: requests that hold a place in the engine.
    """

    tokens: float
    requests: float
    running: float


def constraints(run: Result | RunHistory) -> list[Violation]:
    """Constraints (6a) to (6d) of arXiv 2504.07347 hold for every batch, and all of its requests are present.

    (6a) prefill before decode; (6b) tokens in order, no more than are left; (6c) a request is in a batch at most once,
    with at most one decode token; (6d) no more tokens than the engine's budget.
    """
    history = history_of(run)
    result = history.result
    before, tokens, prefilling = history.computed, history.tokens, history.computed < history.prefill_target
    found: list[Violation] = []

    def report(rule: str, wrong: np.ndarray, text: str) -> None:
        for e in np.flatnonzero(wrong).tolist():
            phase = "prefill" if history.is_prefill[e] else "decode"
            state = f"{tokens[e]} {phase} tokens after {before[e]} of {history.prefill_target[e]} to prefill"
            found.append(Violation(rule, f"{text}: {state}", int(history.batch[e]), int(history.request[e])))

    report("6a", history.is_prefill != prefilling, "prefill must come before decode and end with the prompt")
    left = np.where(prefilling, history.prefill_target - before, 1)
    report("6b", (tokens < 1) | (history.is_prefill & (tokens > left)), "not within the tokens that are left")
    report("6c", ~history.is_prefill & (tokens != 1), "a decode must be one token")
    twice = np.zeros(len(tokens), dtype=bool)
    twice[1:] = (np.diff(history.request) == 0) & (np.diff(history.batch) == 0)
    report("6c", twice, "a request must not be in a batch twice")
    decided, rows = history.batches.decided[history.batch], result.requests[history.request]
    absent = (rows.arrival > decided) | (rows.left <= decided)
    report("presence", absent, "the request is not in the system")
    budget = result.engine.token_budget
    total = history.batches.prefill_tokens + history.batches.decode_tokens
    for b in np.flatnonzero(total > budget).tolist():
        found.append(Violation("6d", f"{total[b]} tokens, above the engine's budget of {budget}", b))
    for i in history.inconsistent:
        found.append(Violation("6b", "its preemptions and prefix hits do not explain its entries", request=i))
    return found


def limits(run: Result | RunHistory, scheduler: Scheduler | None = None) -> list[Violation]:
    """Request slots, KV blocks and, given the scheduler, its own token budget and request limits are respected.

    KV blocks in use must equal those that the entries account for. With prefix caching there may be fewer. There may be
    more if the scheduler reserves blocks in advance, or if it is not given.
    """
    history = history_of(run)
    batches, engine = history.batches, history.result.engine
    most = limits_of(history, scheduler)
    checks = [
        ("token budget", "tokens", batches.prefill_tokens + batches.decode_tokens, most.tokens),
        ("request slots", "requests", batches.num_seqs, most.requests),
        ("active requests", "running requests", batches.num_running, most.running),
        ("KV memory", "KV blocks", batches.kv_blocks_used, engine.kv_blocks or math.inf),
    ]
    found = []
    for rule, unit, used, allowed in checks:
        for b in np.flatnonzero(used > allowed).tolist():
            found.append(Violation(rule, f"{used[b]} {unit}, allowed {allowed:g}", b))
    held, used = _kv_blocks_held(history), batches.kv_blocks_used
    keeps_more = scheduler is None or scheduler.reserves_kv
    wrong = (used < held) & (not engine.prefix_caching) | (used > held) & (not keeps_more)
    for b in np.flatnonzero(wrong & ~history.uncertain).tolist():
        message = f"{batches.kv_blocks_used[b]} KV blocks in use by its row, {held[b]} by the entries"
        found.append(Violation("KV memory", message, b))
    return found


def timing(run: Result | RunHistory) -> list[Violation]:
    """Batches do not overlap and last as long as the batch-time law says; request rows have the times of their batches.

    Times are compared up to 1e-9 of the clock. With step noise batches may last any time.
    """
    history = history_of(run)
    result, ends = history.result, history.ends
    batches, rows = history.batches, result.requests
    slack = history.slack
    found = []
    for b in (np.flatnonzero(batches.start[1:] < ends[:-1] - slack) + 1).tolist():
        found.append(
            Violation("overlap", f"starts at {batches.start[b]:.9g} s, the one before ends {ends[b - 1]:.9g}", b)
        )
    earliest = batches.start
    if result.engine.schedule_ahead:
        earliest = np.append(batches.start[:1], batches.start[:-1])[: len(batches)]
    late = (batches.decided < earliest - slack) | (batches.decided > batches.start + slack)
    for b in np.flatnonzero(late).tolist():
        message = f"decided at {batches.decided[b]:.9g} s for a start at {batches.start[b]:.9g} s"
        found.append(Violation("decision time", message, b))
    seconds = _batch_seconds(history)
    off = np.abs(seconds - batches.duration) > slack
    for b in np.flatnonzero(off if result.engine.step_noise == 0 else batches.duration <= 0).tolist():
        message = f"lasts {batches.duration[b]:.9g} s, by its composition {seconds[b]:.9g} s"
        found.append(Violation("batch time", message, b))
    if len(ends) and ends[-1] > result.end + slack:
        found.append(Violation("overlap", f"ends after the run, which stopped at {result.end:.9g} s", len(ends) - 1))

    def compare(name: str, when: np.ndarray, own: np.ndarray) -> None:
        expected = np.full(len(rows), math.nan)
        expected[own] = when
        known = np.isin(np.arange(len(rows)), own)
        # A batch that was running when the run stopped has no row, but its requests count as scheduled.
        wrong = (np.abs(rows[name] - expected) > slack) | (known & np.isnan(rows[name]))
        wrong |= ~known & ~np.isnan(rows[name]) & (name != "first_scheduled")
        for i in np.flatnonzero(wrong).tolist():
            message = f"{name} at {rows[name][i]:.9g} s, by its batches at {expected[i]:.9g} s"
            found.append(Violation("times", message, request=i))

    opening = np.flatnonzero(np.append(True, history.request[1:] != history.request[:-1])[: len(history.request)])
    compare("first_scheduled", batches.start[history.batch[opening]], history.request[opening])
    first = history.yields & (history.generated == 0)
    compare("first_token", ends[history.batch[first]], history.request[first])
    done = history.finishes
    compare("finish", ends[history.batch[done]], history.request[done])
    return found


def limits_of(history: RunHistory, scheduler: Scheduler | None) -> BatchLimits:
    """The limits of the engine or, where lower, of the scheduler."""
    engine = history.result.engine
    limits: dict[str, float] = {}
    if scheduler is not None:
        limits = dict(zip(scheduler.params, scheduler.param_values().tolist(), strict=True))
    return BatchLimits(
        tokens=min(engine.token_budget, limits.get("token_budget", math.inf)),
        requests=min(engine.max_num_seqs or math.inf, limits.get("max_num_seqs", math.inf)),
        running=limits.get("max_num_active_seqs", math.inf),
    )


def _kv_blocks_held(history: RunHistory) -> np.ndarray:
    """KV blocks in use after the decision of each batch, i8[b]; shared blocks count once for every request."""
    size, num = history.result.engine.block_size, len(history.batches)
    after = kv_blocks(history.done, size)
    given = after - np.where(history.starts_attempt, 0, kv_blocks(history.computed, size))
    change = np.bincount(history.batch, weights=given, minlength=num + 1)
    lost = history.preempted_in >= 0
    change -= np.bincount(history.preempted_in[lost], weights=after[lost], minlength=num + 1)
    gone = history.is_last & ~lost
    left = history.decided_from(history.result.requests.left[history.request[gone]])
    change -= np.bincount(left, weights=after[gone], minlength=num + 1)
    return np.cumsum(change)[:num].astype(np.int64)


def _batch_seconds(history: RunHistory) -> np.ndarray:
    """Seconds of each batch by the engine's batch-time law, f8[b]."""
    engine, prefill, before, n = history.result.engine, history.is_prefill, history.computed, history.tokens
    seconds = engine.batch_time.seconds(
        history.per_batch(n),
        history.per_batch(before, ~prefill),
        history.per_batch(n * before + n * (n + 1) // 2, prefill),
        history.per_batch(before, prefill),
        history.per_batch(1),
    )
    seconds = seconds + engine.host_overhead[0] + engine.host_overhead[1] * history.per_batch(1)
    batches, decision = history.batches, history.result.decision_time
    seconds = seconds + decision[0] + decision[1] * batches.num_in_system
    total: np.ndarray = seconds + engine.swap_block_time * batches.swapped
    return total
