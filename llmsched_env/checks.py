"""Whether a run kept the rules: conservation, feasibility of every batch, and what its scheduler claims.

Every check reads the rows of a run recorded with `record="entries"` and returns the violations it found; an empty list
is what a correct run gives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llmsched_env.ledger import Ledger, blocks, limits_of
from llmsched_env.simulator import metrics

if TYPE_CHECKING:
    from llmsched_env.simulator.records import Result
    from llmsched_env.simulator.scheduler import Scheduler

_SECONDS = 1e-9  # tolerance in s, over the magnitude of the clock where that is above 1 s


class Violation(NamedTuple):
    """A rule that was broken, where and how.

    Attributes:
        rule: short name of the rule, such as "6d" or "work conservation".
        message: a sentence with the numbers.
        batch: row number, or None.
        request: row number, or None.
    """

    rule: str
    message: str
    batch: int | None = None
    request: int | None = None

    def __str__(self) -> str:
        where = [f"{name} {n}" for name, n in (("batch", self.batch), ("request", self.request)) if n is not None]
        return f"[{self.rule}] {', '.join(where)}{': ' if where else ''}{self.message}"


def check_all(result: Result, scheduler: Scheduler | None = None) -> list[Violation]:
    """Violations of the rules that hold for every run; with a scheduler, also of its limits and its claims.

    Args:
        result: a run recorded with `record="entries"`.
        scheduler: what ran, with its parameters bound; results keep its name only.

    Raises:
        ValueError: if the run was recorded without entries.
    """
    ledger = Ledger(result)
    found = [*conservation(ledger), *constraints(ledger), *limits(ledger, scheduler), *timing(ledger)]
    return found if scheduler is None else found + claims(ledger, scheduler)


def conservation(run: Result | Ledger) -> list[Violation]:
    """Every token and every request is accounted for: entries, rows of requests, rows of batches and ends agree."""
    ledger = _ledger(run)
    return [*_requests_add_up(ledger), *_batches_add_up(ledger)]


def constraints(run: Result | Ledger) -> list[Violation]:
    """Constraints (6a) to (6d) of arXiv 2504.07347 on every batch, and that only present requests are in it.

    (6a) prefill before decode; (6b) tokens in order, no more than there are; (6c) a request is in a batch once, with
    one decode token at most; (6d) no more tokens than the engine's budget.
    """
    ledger = _ledger(run)
    result = ledger.result
    before, tokens, prefilling = ledger.computed, ledger.tokens, ledger.computed < ledger.target
    found: list[Violation] = []

    def report(rule: str, wrong: np.ndarray, text: str) -> None:
        for e in np.flatnonzero(wrong).tolist():
            phase = "prefill" if ledger.is_prefill[e] else "decode"
            state = f"{tokens[e]} {phase} tokens after {before[e]} of {ledger.target[e]} to prefill"
            found.append(Violation(rule, f"{text}: {state}", int(ledger.batch[e]), int(ledger.request[e])))

    report("6a", ledger.is_prefill != prefilling, "prefill must come before decode and end with the prompt")
    left = np.where(prefilling, ledger.target - before, 1)
    report("6b", (tokens < 1) | (ledger.is_prefill & (tokens > left)), "not within the tokens that are left")
    report("6c", ~ledger.is_prefill & (tokens != 1), "a decode must be one token")
    twice = np.zeros(len(tokens), dtype=bool)
    twice[1:] = (np.diff(ledger.request) == 0) & (np.diff(ledger.batch) == 0)
    report("6c", twice, "a request must not be in a batch twice")
    decided, rows = result.batches.decided[ledger.batch], result.requests[ledger.request]
    absent = (rows.arrival > decided) | (rows.left <= decided)
    report("presence", absent, "the request is not in the system")
    budget = result.engine.token_budget
    total = result.batches.prefill_tokens + result.batches.decode_tokens
    for b in np.flatnonzero(total > budget).tolist():
        found.append(Violation("6d", f"{total[b]} tokens, above the engine's budget of {budget}", b))
    for i in ledger.inconsistent:
        found.append(Violation("6b", "its preemptions and prefix hits do not explain its entries", request=i))
    return found


def limits(run: Result | Ledger, scheduler: Scheduler | None = None) -> list[Violation]:
    """Request slots, KV blocks and, given the scheduler, its own token budget and request limits are respected.

    KV blocks in use are those that the entries account for: at most these where prefixes are shared, and not fewer than
    these where a scheduler may keep blocks beyond the tokens, as it may if it is not given.
    """
    ledger = _ledger(run)
    batches, engine = ledger.result.batches, ledger.result.engine
    budget, seats, active = limits_of(ledger, _own_limits(scheduler))
    checks = [
        ("token budget", "tokens", batches.prefill_tokens + batches.decode_tokens, budget),
        ("request slots", "requests", batches.num_seqs, seats),
        ("active requests", "running requests", batches.num_running, active),
        ("KV memory", "KV blocks", batches.kv_blocks_used, engine.kv_blocks or math.inf),
    ]
    found = []
    for rule, unit, used, most in checks:
        for b in np.flatnonzero(used > most).tolist():
            found.append(Violation(rule, f"{used[b]} {unit}, allowed {most:g}", b))
    held, used = _kv_blocks_held(ledger), batches.kv_blocks_used
    keeps_more = scheduler is None or scheduler.reserves_kv
    wrong = (used < held) & (not engine.prefix_caching) | (used > held) & (not keeps_more)
    for b in np.flatnonzero(wrong & ~ledger.uncertain).tolist():
        message = f"{batches.kv_blocks_used[b]} KV blocks in use by its row, {held[b]} by the entries"
        found.append(Violation("KV memory", message, b))
    return found


def timing(run: Result | Ledger) -> list[Violation]:
    """Batches follow one another and last as the batch-time law says; rows of requests have the times of their batches.

    Times are compared to 1e-9 of the clock.
    """
    ledger = _ledger(run)
    result, ends = ledger.result, ledger.ends
    batches, rows = result.batches, result.requests
    slack = _SECONDS * max(1.0, abs(result.end))
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
    expected = _batch_seconds(ledger)
    for b in np.flatnonzero(np.abs(expected - batches.duration) > slack).tolist():
        message = f"lasts {batches.duration[b]:.9g} s, by its composition {expected[b]:.9g} s"
        found.append(Violation("batch time", message, b))
    if len(ends) and ends[-1] > result.end + slack:
        found.append(Violation("overlap", f"ends after the run, which stopped at {result.end:.9g} s", len(ends) - 1))

    def compare(name: str, when: np.ndarray, own: np.ndarray) -> None:
        told = np.full(len(rows), math.nan)
        told[own] = when
        known = np.isin(np.arange(len(rows)), own)
        # A batch that was running when the run stopped has no row, but its requests have been scheduled.
        wrong = (np.abs(rows[name] - told) > slack) | (known & np.isnan(rows[name]))
        wrong |= ~known & ~np.isnan(rows[name]) & (name != "first_scheduled")
        for i in np.flatnonzero(wrong).tolist():
            message = f"{name} at {rows[name][i]:.9g} s, by its batches at {told[i]:.9g} s"
            found.append(Violation("times", message, request=i))

    opening = np.flatnonzero(np.append(True, ledger.request[1:] != ledger.request[:-1])[: len(ledger.request)])
    compare("first_scheduled", batches.start[ledger.batch[opening]], ledger.request[opening])
    first = ledger.yields & (ledger.generated == 0)
    compare("first_token", ends[ledger.batch[first]], ledger.request[first])
    done = ledger.finishes
    compare("finish", ends[ledger.batch[done]], ledger.request[done])
    return found


def work_conservation(run: Result | Ledger, scheduler: Scheduler | None = None) -> list[Violation]:
    """(8)-(9) of arXiv 2504.07347: a batch takes all demand or fills the budget, and no time passes between.

    Demand is what a batch could take if it were large enough when it is decided: all the prefill left of every present
    request, less what of it is cached, and one token of every one that decodes.

    Args:
        run: of an engine with unlimited KV memory and request slots; for others there is `maximality`.
        scheduler: gives its own token budget.

    Raises:
        ValueError: if there is a limit other than the token budget, or entries were not recorded.
    """
    ledger = _ledger(run)
    batches, engine = ledger.result.batches, ledger.result.engine
    budget, seats, active = limits_of(ledger, _own_limits(scheduler))
    for name, limit in (("max_num_seqs", seats), ("max_num_active_seqs", active), ("kv_blocks", engine.kv_blocks)):
        if limit not in (None, math.inf):
            raise ValueError(f"{name} must be unlimited for work conservation, got {limit:g}; use maximality")
    demand, taken = _demand(ledger), batches.prefill_tokens + batches.decode_tokens
    due = np.minimum(demand, budget)
    found = [
        Violation("work conservation", f"{taken[b]} tokens of a demand of {demand[b]}, budget {budget:g}", b)
        for b in np.flatnonzero(taken != due).tolist()
    ]
    return found + list(_idle(ledger))


def maximality(run: Result | Ledger, scheduler: Scheduler | None = None) -> list[Violation]:
    """No present request could legally get one more token in any batch: work conservation where there are limits.

    Legal is what budget, request slots and free KV blocks allow without preempting anyone. A waiting request must find
    blocks for all it has to prefill, with nothing of it cached, in a batch in which nobody was preempted; since queues
    may hold any order, a batch is blamed for leaving a waiting request out only if every one of them would have fitted.
    A request whose last token is under way keeps its slot.

    Args:
        run: the run.
        scheduler: gives its own limits.
    """
    ledger = _ledger(run)
    result = ledger.result
    batches, engine = result.batches, result.engine
    budget, seats, active = limits_of(ledger, _own_limits(scheduler))
    room = batches.prefill_tokens + batches.decode_tokens < budget
    limited = engine.kv_blocks is not None
    free = engine.kv_blocks - batches.kv_blocks_used if limited else np.full(len(batches), np.iinfo(np.int64).max)
    if engine.prefix_caching:  # a block that turns out to be cached already is freed only as the batch is decided
        filled = ledger.done // engine.block_size - ledger.computed // engine.block_size
        free = free - ledger.per_batch(filled).astype(np.int64)
    found = []

    usable = np.where(ledger.is_prefill, ledger.target - ledger.computed, 1)
    slack = ledger.done % engine.block_size != 0
    more = (ledger.tokens < usable) & room[ledger.batch] & (slack | (free[ledger.batch] > 0))
    for e in np.flatnonzero(more).tolist():
        message = f"got {ledger.tokens[e]} of {usable[e]} tokens though the batch has room for more"
        found.append(Violation("maximality", message, int(ledger.batch[e]), int(ledger.request[e])))

    done = _last_token_under_way(ledger)
    left_out = room & (batches.num_seqs < seats) & (batches.num_running - done > batches.num_seqs)
    startable = room & (batches.num_seqs + done < seats) & (batches.num_waiting > 0) & (batches.preemptions == 0)
    startable &= batches.num_running < active
    if limited:
        found += _left_out(ledger, free, left_out & ~ledger.uncertain, startable & ~ledger.uncertain)
    else:
        for b in np.flatnonzero(left_out | startable).tolist():
            idle = batches.num_running[b] - done[b] + batches.num_waiting[b] - batches.num_seqs[b]
            message = f"{idle} present requests got nothing though there is room"
            found.append(Violation("maximality", message, b))
    return found + list(_idle(ledger) if not limited and active == math.inf else ())


def claims(run: Result | Ledger, scheduler: Scheduler) -> list[Violation]:
    """What a scheduler declares of itself: `mixes_phases`, `chunks_prefill` and `work_conserving`.

    Work conservation is judged by (8)-(9) where only the token budget limits, else by `maximality`.
    """
    ledger = _ledger(run)
    batches, found = ledger.result.batches, []
    if not scheduler.mixes_phases:
        for b in np.flatnonzero((batches.prefill_tokens > 0) & (batches.decode_tokens > 0)).tolist():
            message = f"{batches.prefill_tokens[b]} prefill and {batches.decode_tokens[b]} decode tokens in one batch"
            found.append(Violation("mixes_phases", message, b))
    if not scheduler.chunks_prefill:
        for e in np.flatnonzero(ledger.is_prefill & (ledger.tokens < ledger.target - ledger.computed)).tolist():
            message = f"a chunk of {ledger.tokens[e]} tokens, {ledger.target[e] - ledger.computed[e]} were left"
            found.append(Violation("chunks_prefill", message, int(ledger.batch[e]), int(ledger.request[e])))
    if scheduler.work_conserving:
        _, seats, active = limits_of(ledger, _own_limits(scheduler))
        free = ledger.result.engine.kv_blocks is None and seats == active == math.inf
        found += work_conservation(ledger, scheduler) if free else maximality(ledger, scheduler)
    return found


def _ledger(run: Result | Ledger) -> Ledger:
    return run if isinstance(run, Ledger) else Ledger(run)


def _own_limits(scheduler: Scheduler | None) -> dict[str, float]:
    return {} if scheduler is None else dict(zip(scheduler.params, scheduler.param_values().tolist(), strict=True))


def _requests_add_up(ledger: Ledger) -> Iterator[Violation]:
    rows = ledger.result.requests
    given = np.bincount(ledger.request, weights=ledger.tokens, minlength=len(rows)).astype(np.int64)
    generated = np.bincount(ledger.request, weights=ledger.yields, minlength=len(rows)).astype(np.int64)
    told = rows.computed + rows.recomputed - rows.prefix_hit
    yield from _unequal("tokens", "computed and recomputed less prefix hits", told, "by entries", given)
    yield from _unequal("tokens", "generated", rows.generated, "by entries", generated)
    finished = rows.status == "finished"
    yield from _unequal("requests", "finished", finished, "all generated", generated == rows.output_tokens)
    yield from _unequal("requests", "finished", finished, "has a finish time", ~np.isnan(rows.finish))
    yield from _unequal("requests", "active", rows.status == "active", "has not left", np.isnan(rows.left))
    # Who was preempted with the last token under way finishes with nothing.
    own = finished & (rows.computed != ledger.work) & ~((rows.computed == 0) & (rows.preemptions > 0))
    for i in np.flatnonzero(own).tolist():
        message = f"finished with {rows.computed[i]} tokens computed, its work is {ledger.work[i]}"
        yield Violation("tokens", message, request=i)


def _batches_add_up(ledger: Ledger) -> Iterator[Violation]:
    result = ledger.result
    batches, rows = result.batches, result.requests
    columns = (
        ("prefill_tokens", batches.prefill_tokens, ledger.per_batch(ledger.tokens, ledger.is_prefill)),
        ("decode_tokens", batches.decode_tokens, ledger.per_batch(ledger.tokens, ~ledger.is_prefill)),
        ("num_seqs", batches.num_seqs, ledger.per_batch(1)),
    )
    for name, own, told in columns:
        for b in np.flatnonzero(own != told).tolist():
            yield Violation("batch rows", f"{name} is {own[b]} by its row, {told[b]:g} by the others", b)
    rest = ledger.work - rows.computed
    present = batches.num_running + batches.num_waiting
    for name, own, at, told, amount in (
        ("num_running and num_waiting", present, batches.decided, result.number_in_system, np.ones_like(rest)),
        ("num_in_system", batches.num_in_system, batches.start, result.number_in_system, np.ones_like(rest)),
        ("backlog", batches.backlog, batches.start, result.backlog, rest),
    ):
        told = told(at)
        for b in np.flatnonzero((own < told) | (own > told + _turned_away_later(result, at, amount))).tolist():
            yield Violation("batch rows", f"{name} is {own[b]} by its row, {told[b]:g} by the others", b)
    hits = ledger.per_batch(ledger.prefix_hits)
    most = hits + ledger.per_batch(ledger.computed, ~ledger.first & ledger.hidden[ledger.request])
    for b in np.flatnonzero((batches.prefix_hit < hits) | (batches.prefix_hit > most)).tolist():
        yield Violation(
            "batch rows", f"prefix_hit is {batches.prefix_hit[b]} by its row, {hits[b]:g} by its entries", b
        )
    active = rows.status == "active"
    left, told = int((ledger.work - rows.computed)[active].sum()), int(metrics.backlog(result, result.end))
    if left != told:
        yield Violation("tokens", f"{left} tokens of work are left at the end by requests, {told} by batches")


def _turned_away_later(result: Result, times: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Sums of the amounts of requests turned away at these very times, perhaps after the row was written.

    A batch is decided ahead as another one starts, at the same time.
    """
    rows = result.requests
    own = np.flatnonzero((rows.status == "rejected") & (result.engine.schedule_ahead == 1))
    total = np.append(0, np.cumsum(amounts[own][np.argsort(rows.left[own], kind="stable")]))
    left = np.sort(rows.left[own])
    return total[np.searchsorted(left, times, "right")] - total[np.searchsorted(left, times)]


def _unequal(rule: str, name: str, values: np.ndarray, other: str, told: np.ndarray) -> Iterator[Violation]:
    for i in np.flatnonzero(values != told).tolist():
        yield Violation(rule, f"{name}: {values[i]}, {other}: {told[i]}", request=i)


def _kv_blocks_held(ledger: Ledger) -> np.ndarray:
    """KV blocks in use as each batch has been decided, those given for it included and shared ones counted anew."""
    size, num = ledger.result.engine.block_size, len(ledger.result.batches)
    after = blocks(ledger.done, size)
    given = after - np.where(ledger.first, 0, blocks(ledger.computed, size))
    change = np.bincount(ledger.batch, weights=given, minlength=num + 1)
    lost = ledger.lost_in >= 0
    change -= np.bincount(ledger.lost_in[lost], weights=after[lost], minlength=num + 1)
    gone = ledger.last & ~lost
    left = ledger.decided_from(ledger.result.requests.left[ledger.request[gone]])
    change -= np.bincount(left, weights=after[gone], minlength=num + 1)
    return np.cumsum(change)[:num].astype(np.int64)


def _last_token_under_way(ledger: Ledger) -> np.ndarray:
    """Requests of which nothing is left to schedule as each batch is decided, i8[b]."""
    num = len(ledger.result.batches)
    last = ledger.completes & (ledger.lost_in < 0)
    change = np.bincount(ledger.batch[last] + 1, minlength=num + 1)
    change -= np.bincount(ledger.decided_from(ledger.result.requests.left[ledger.request[last]]), minlength=num + 1)
    return np.cumsum(change)[:num]


def _batch_seconds(ledger: Ledger) -> np.ndarray:
    """Seconds of each batch by the law of the engine and its entries."""
    engine, prefill, before, n = ledger.result.engine, ledger.is_prefill, ledger.computed, ledger.tokens
    seconds = engine.batch_time.seconds(
        ledger.per_batch(n),
        ledger.per_batch(before, ~prefill),
        ledger.per_batch(n * before + n * (n + 1) // 2, prefill),
        ledger.per_batch(before, prefill),
    )
    seconds = seconds + engine.host_overhead[0] + engine.host_overhead[1] * ledger.per_batch(1)
    batches, decision = ledger.result.batches, ledger.result.decision_time
    seconds = seconds + decision[0] + decision[1] * batches.num_in_system
    return seconds + engine.swap_block_time * batches.swapped


def _demand(ledger: Ledger) -> np.ndarray:
    """Tokens that each batch could have taken: prefill left and decoding requests of all present."""
    result = ledger.result
    batches, rows = result.batches, result.requests
    num = len(batches)
    change = np.zeros(num + 1)

    def add(values: np.ndarray, place: np.ndarray) -> None:
        change[:] += np.bincount(place, weights=values, minlength=num + 1)

    add(rows.prompt_tokens, ledger.decided_from(rows.arrival))
    done = ledger.done
    add(-1.0 * ledger.prefix_hits, ledger.batch)
    add(-(ledger.tokens * ledger.is_prefill), ledger.batch + 1)
    decoding = done >= ledger.target
    add(1.0 * (decoding & ledger.is_prefill), ledger.batch + 1)
    add(-1.0 * ledger.completes, ledger.batch + 1)
    lost = ledger.lost_in >= 0
    again = rows.prompt_tokens[ledger.request] + ledger.generated + ledger.produces
    left = np.where(decoding, 1.0 - ledger.completes, ledger.target - done)
    add((again - left)[lost], ledger.lost_in[lost])
    gone = np.flatnonzero(rows.status != "active")  # with what could still have been taken
    rest = rows.prompt_tokens.astype(float)
    rest[ledger.request[ledger.last]] = np.where(lost, again, left)[ledger.last]
    add(-rest[gone], ledger.decided_from(rows.left[gone]))
    return np.cumsum(change)[:num].astype(np.int64)


def _idle(ledger: Ledger) -> Iterator[Violation]:
    """Batches that start later than they could, and an end of the run with work but no batch."""
    result = ledger.result
    batches, rows = result.batches, result.requests
    arrival = rows.arrival[~(rows.left <= rows.arrival)]  # whoever is turned away at once is no work
    slack = _SECONDS * max(1.0, abs(result.end))
    free = np.append(0.0, ledger.ends[:-1])[: len(batches)]  # when the engine could have gone on
    present = metrics.number_in_system(result.requests, free + slack) > 0
    following = np.searchsorted(arrival, free, "right")
    due = np.where(present, free, np.append(arrival, math.inf)[following])
    for b in np.flatnonzero(batches.start > due + slack).tolist():
        yield Violation("idle", f"starts at {batches.start[b]:.9g} s, there was work from {due[b]:.9g} s on", b)
    if result.stalled:
        yield Violation("idle", f"no batch after {result.stalled_since:.9g} s though requests are present")


def _left_out(ledger: Ledger, free: np.ndarray, running: np.ndarray, waiting: np.ndarray) -> Iterator[Violation]:
    """Requests that could have been served by batches with room and `free` KV blocks left.

    `running` and `waiting` say in which batches such requests were left out at all.
    """
    result = ledger.result
    size, decided = result.engine.block_size, result.batches.decided
    arrival, left, prompt = (result.requests[name].copy() for name in ("arrival", "left", "prompt_tokens"))
    completes = ledger.completes
    arrived = np.searchsorted(arrival, decided, "right")
    for b in np.flatnonzero(running | waiting).tolist():
        here = np.flatnonzero(~(left[: arrived[b]] <= decided[b]))
        before = ledger.last_entries(b, here)
        begun = before >= 0
        alive = begun & ~((ledger.lost_in[before] >= 0) & (ledger.lost_in[before] <= b))
        if running[b]:
            idle = alive & (ledger.batch[before] < b) & ~completes[before]
            held = ledger.done[before]
            for i in here[idle & ((held % size != 0) | (free[b] > 0))].tolist():
                yield Violation("maximality", "runs and got nothing though there is room and memory", b, i)
        if waiting[b]:
            done = np.where(begun, ledger.generated[before] + ledger.produces[before], 0)
            need = blocks(prompt[here] + done, size)[~alive]
            if len(need) and need.max() <= free[b]:
                message = (
                    f"{len(need)} waiting requests got nothing, none needs over {need.max()} of {free[b]} free blocks"
                )
                yield Violation("maximality", message, b)
