"""Tokens and requests are conserved: entries, request rows and batch rows agree."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmsched_env.results import metrics
from llmsched_env.results.records import Result
from llmsched_env.testing.run_history import RunHistory, history_of
from llmsched_env.testing.violation import Violation


def conservation(run: Result | RunHistory) -> list[Violation]:
    """Every token and request is accounted for: entries, request rows and batch rows agree."""
    history = history_of(run)
    return [*_requests_add_up(history), *_batches_add_up(history)]


def _requests_add_up(history: RunHistory) -> Iterator[Violation]:
    rows = history.result.requests
    given = np.bincount(history.request, weights=history.tokens, minlength=len(rows)).astype(np.int64)
    generated = np.bincount(history.request, weights=history.yields, minlength=len(rows)).astype(np.int64)
    computed = rows.computed + rows.recomputed - rows.prefix_hit
    yield from _unequal("tokens", "computed and recomputed less prefix hits", computed, "by entries", given)
    yield from _unequal("tokens", "generated", rows.generated, "by entries", generated)
    finished = rows.status == "finished"
    yield from _unequal("requests", "finished", finished, "all generated", generated == rows.output_tokens)
    yield from _unequal("requests", "finished", finished, "has a finish time", ~np.isnan(rows.finish))
    yield from _unequal("requests", "active", rows.status == "active", "has not left", np.isnan(rows.left))
    # A request that is preempted while its last token is being computed finishes with no KV tokens.
    own = finished & (rows.computed != history.work) & ~((rows.computed == 0) & (rows.preemptions > 0))
    for i in np.flatnonzero(own).tolist():
        message = f"finished with {rows.computed[i]} tokens computed, its work is {history.work[i]}"
        yield Violation("tokens", message, request=i)


def _batches_add_up(history: RunHistory) -> Iterator[Violation]:
    result = history.result
    batches, rows = history.batches, result.requests
    columns = (
        ("prefill_tokens", batches.prefill_tokens, history.per_batch(history.tokens, history.is_prefill)),
        ("decode_tokens", batches.decode_tokens, history.per_batch(history.tokens, ~history.is_prefill)),
        ("num_seqs", batches.num_seqs, history.per_batch(1)),
    )
    for name, own, expected in columns:
        for b in np.flatnonzero(own != expected).tolist():
            yield Violation("batch rows", f"{name} is {own[b]} by its row, {expected[b]:g} by the others", b)
    rest = history.work - rows.computed
    present = batches.num_running + batches.num_waiting
    for name, own, at, expected_at, amount in (
        ("num_running and num_waiting", present, batches.decided, result.number_in_system, np.ones_like(rest)),
        ("num_in_system", batches.num_in_system, batches.start, result.number_in_system, np.ones_like(rest)),
        ("backlog", batches.backlog, batches.start, result.backlog, rest),
    ):
        expected = np.asarray(expected_at(at))
        most = expected + _rejected_at(result, at, amount)
        for b in np.flatnonzero((own < expected) | (own > most)).tolist():
            yield Violation("batch rows", f"{name} is {own[b]} by its row, {expected[b]:g} by the others", b)
    hits = history.per_batch(history.prefix_hits)
    most = hits + history.per_batch(history.computed, ~history.starts_attempt & history.hidden[history.request])
    for b in np.flatnonzero((batches.prefix_hit < hits) | (batches.prefix_hit > most)).tolist():
        yield Violation(
            "batch rows", f"prefix_hit is {batches.prefix_hit[b]} by its row, {hits[b]:g} by its entries", b
        )
    active = rows.status == "active"
    left, backlog = int((history.work - rows.computed)[active].sum()), int(metrics.backlog(result, result.end))
    if left != backlog:
        yield Violation("tokens", f"{left} tokens of work are left at the end by requests, {backlog} by batches")


def _rejected_at(result: Result, times: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Sums of the amounts of requests that were rejected exactly at these times.

    With `schedule_ahead` the next batch is decided at the time at which another one starts, after the row of that one
    was written.
    """
    rows = result.requests
    own = np.flatnonzero((rows.status == "rejected") & (result.engine.schedule_ahead == 1))
    total = np.append(0, np.cumsum(amounts[own][np.argsort(rows.left[own], kind="stable")]))
    left = np.sort(rows.left[own])
    sums: np.ndarray = total[np.searchsorted(left, times, "right")] - total[np.searchsorted(left, times)]
    return sums


def _unequal(rule: str, name: str, values: np.ndarray, other: str, others: np.ndarray) -> Iterator[Violation]:
    for i in np.flatnonzero(values != others).tolist():
        yield Violation(rule, f"{name}: {values[i]}, {other}: {others[i]}", request=i)
