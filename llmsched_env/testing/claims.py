"""What a scheduler claims of itself: whole prompts, unmixed phases, work conservation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from llmsched_env.results import metrics
from llmsched_env.results.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.testing.feasibility import limits_of
from llmsched_env.testing.run_history import RunHistory, history_of, kv_blocks
from llmsched_env.testing.violation import Violation


def claims(run: Result | RunHistory, scheduler: Scheduler) -> list[Violation]:
    """The scheduler keeps what it declares: `mixes_phases`, `chunks_prefill` and `work_conserving`.

    Work conservation is checked by `work_conservation` if the token budget is the only limit, else by `maximality`.
    """
    history = history_of(run)
    batches, found = history.batches, []
    if not scheduler.mixes_phases:
        for b in np.flatnonzero((batches.prefill_tokens > 0) & (batches.decode_tokens > 0)).tolist():
            message = f"{batches.prefill_tokens[b]} prefill and {batches.decode_tokens[b]} decode tokens in one batch"
            found.append(Violation("mixes_phases", message, b))
    if not scheduler.chunks_prefill:
        left = history.prefill_target - history.computed
        for e in np.flatnonzero(history.is_prefill & (history.tokens < left)).tolist():
            message = f"a chunk of {history.tokens[e]} tokens, {left[e]} were left"
            found.append(Violation("chunks_prefill", message, int(history.batch[e]), int(history.request[e])))
    if scheduler.work_conserving:
        most = limits_of(history, scheduler)
        only_tokens = history.result.engine.kv_blocks is None and most.requests == most.running == math.inf
        found += work_conservation(history, scheduler) if only_tokens else maximality(history, scheduler)
    return found


def work_conservation(run: Result | RunHistory, scheduler: Scheduler | None = None) -> list[Violation]:
    """(8)-(9) of arXiv 2504.07347: every batch takes all demand or fills the budget, and the engine never idles.

    The demand of a batch is what it could take at its decision without a budget: the prefill left of every present
    request, less cached tokens, and one token of every decoding request.

    Args:
        run: of an engine with unlimited KV memory and request slots; use `maximality` for others.
        scheduler: gives its own token budget.

    Raises:
        ValueError: if there is a limit other than the token budget, or entries were not recorded.
    """
    history = history_of(run)
    batches, engine = history.batches, history.result.engine
    most = limits_of(history, scheduler)
    others = {"max_num_seqs": most.requests, "max_num_active_seqs": most.running, "kv_blocks": engine.kv_blocks}
    for name, limit in others.items():
        if limit not in (None, math.inf):
            raise ValueError(f"{name} must be unlimited for work conservation, got {limit:g}; use maximality")
    demand, taken = _demand(history), batches.prefill_tokens + batches.decode_tokens
    due = np.minimum(demand, most.tokens)
    found = [
        Violation("work conservation", f"{taken[b]} tokens of a demand of {demand[b]}, budget {most.tokens:g}", b)
        for b in np.flatnonzero(taken != due).tolist()
    ]
    return found + list(_idle(history))


def maximality(run: Result | RunHistory, scheduler: Scheduler | None = None) -> list[Violation]:
    """No present request could legally get one more token in any batch: work conservation under limits.

    A token is legal if the token budget, request slots and free KV blocks allow it without a preemption. A waiting
    request needs free blocks for its whole prefill, with nothing cached, and a batch that preempted nobody. Queues may
    be served in any order, so leaving out waiting requests is a violation only if each of them would have fitted.
    A request keeps its slot while its last token is being computed.

    Args:
        run: the run.
        scheduler: gives its own limits.

    Raises:
        ValueError: if entries were not recorded.
    """
    history = history_of(run)
    result = history.result
    batches, engine = history.batches, result.engine
    most = limits_of(history, scheduler)
    room = batches.prefill_tokens + batches.decode_tokens < most.tokens
    limited = engine.kv_blocks is not None
    free = engine.kv_blocks - batches.kv_blocks_used if limited else np.full(len(batches), np.iinfo(np.int64).max)
    if engine.prefix_caching:  # a block that proves to be cached is freed only at the decision
        filled = history.done // engine.block_size - history.computed // engine.block_size
        free = free - history.per_batch(filled).astype(np.int64)
    found = []

    usable = np.where(history.is_prefill, history.prefill_target - history.computed, 1)
    slack = history.done % engine.block_size != 0
    more = (history.tokens < usable) & room[history.batch] & (slack | (free[history.batch] > 0))
    for e in np.flatnonzero(more).tolist():
        message = f"got {history.tokens[e]} of {usable[e]} tokens though the batch has room for more"
        found.append(Violation("maximality", message, int(history.batch[e]), int(history.request[e])))

    done = _last_token_under_way(history)
    left_out = room & (batches.num_seqs < most.requests) & (batches.num_running - done > batches.num_seqs)
    startable = room & (batches.num_seqs + done < most.requests) & (batches.num_running < most.running)
    startable &= (batches.num_waiting > 0) & (batches.preemptions == 0)
    if limited:
        found += _left_out(history, free, left_out & ~history.uncertain, startable & ~history.uncertain)
    else:
        for b in np.flatnonzero(left_out | startable).tolist():
            idle = batches.num_running[b] - done[b] + batches.num_waiting[b] - batches.num_seqs[b]
            message = f"{idle} present requests got nothing though there is room"
            found.append(Violation("maximality", message, b))
    return found + list(_idle(history) if not limited and most.running == math.inf else ())


def _last_token_under_way(history: RunHistory) -> np.ndarray:
    """Number of requests with nothing left to schedule at the decision of each batch, i8[b]."""
    num = len(history.batches)
    last = history.completes & (history.preempted_in < 0)
    change = np.bincount(history.batch[last] + 1, minlength=num + 1)
    change -= np.bincount(history.decided_from(history.result.requests.left[history.request[last]]), minlength=num + 1)
    return np.cumsum(change)[:num]


def _demand(history: RunHistory) -> np.ndarray:
    """Tokens that each batch could have taken without a budget, i8[b]."""
    result = history.result
    batches, rows = history.batches, result.requests
    num = len(batches)
    change = np.zeros(num + 1)

    def add(values: np.ndarray, place: np.ndarray) -> None:
        change[:] += np.bincount(place, weights=values, minlength=num + 1)

    add(rows.prompt_tokens, history.decided_from(rows.arrival))
    done = history.done
    add(-1.0 * history.prefix_hits, history.batch)
    add(-(history.tokens * history.is_prefill), history.batch + 1)
    decoding = done >= history.prefill_target
    add(1.0 * (decoding & history.is_prefill), history.batch + 1)
    add(-1.0 * history.completes, history.batch + 1)
    lost = history.preempted_in >= 0
    again = rows.prompt_tokens[history.request] + history.generated + history.produces
    left = np.where(decoding, 1.0 - history.completes, history.prefill_target - done)
    add((again - left)[lost], history.preempted_in[lost])
    gone = np.flatnonzero(rows.status != "active")  # with the tokens that they could still have taken
    rest = rows.prompt_tokens.astype(float)
    rest[history.request[history.is_last]] = np.where(lost, again, left)[history.is_last]
    add(-rest[gone], history.decided_from(rows.left[gone]))
    return np.cumsum(change)[:num].astype(np.int64)


def _idle(history: RunHistory) -> Iterator[Violation]:
    """Batches that start later than they could have, and a run that ends with work but no batch."""
    result = history.result
    batches, rows = history.batches, result.requests
    arrival = rows.arrival[~(rows.left <= rows.arrival)]  # requests rejected on arrival are no work
    slack = history.slack
    free = np.append(0.0, history.ends[:-1])[: len(batches)]  # when the engine could have started the batch
    present = metrics.number_in_system(result.requests, free + slack) > 0
    following = np.searchsorted(arrival, free, "right")
    due = np.where(present, free, np.append(arrival, math.inf)[following])
    for b in np.flatnonzero(batches.start > due + slack).tolist():
        yield Violation("idle", f"starts at {batches.start[b]:.9g} s, there was work from {due[b]:.9g} s on", b)
    if result.stalled:
        yield Violation("idle", f"no batch after {result.stalled_since:.9g} s though requests are present")


def _left_out(history: RunHistory, free: np.ndarray, running: np.ndarray, waiting: np.ndarray) -> Iterator[Violation]:
    """Requests that batches could have served.

    Args:
        history: of the run.
        free: KV blocks left in each batch, i8[b].
        running: batches that left out running requests, bool[b].
        waiting: batches that left out waiting requests, bool[b].
    """
    result = history.result
    size, decided = result.engine.block_size, history.batches.decided
    arrival, left, prompt = (result.requests[name].copy() for name in ("arrival", "left", "prompt_tokens"))
    completes = history.completes
    arrived = np.searchsorted(arrival, decided, "right")
    for b in np.flatnonzero(running | waiting).tolist():
        here = np.flatnonzero(~(left[: arrived[b]] <= decided[b]))
        before = history.last_entries(b, here)
        begun = before >= 0
        alive = begun & ~((history.preempted_in[before] >= 0) & (history.preempted_in[before] <= b))
        if running[b]:
            idle = alive & (history.batch[before] < b) & ~completes[before]
            held = history.done[before]
            for i in here[idle & ((held % size != 0) | (free[b] > 0))].tolist():
                yield Violation("maximality", "runs and got nothing though there is room and memory", b, i)
        if waiting[b]:
            done = np.where(begun, history.generated[before] + history.produces[before], 0)
            need = kv_blocks(prompt[here] + done, size)[~alive]
            if len(need) and need.max() <= free[b]:
                message = (
                    f"{len(need)} waiting requests got nothing, none needs over {need.max()} of {free[b]} free blocks"
                )
                yield Violation("maximality", message, b)
