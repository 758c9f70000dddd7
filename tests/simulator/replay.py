"""A second, independent book-keeper: follows a run entry by entry and asserts every rule of the model on the way."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

import llmsched_env as ls
from tests.simulator.cases import Call


@dataclass
class Request:
    """What a request has been given so far, from the entries alone."""

    row: np.record
    separate: bool
    computed: int = 0
    generated: int = 0
    recomputed: int = 0
    preemptions: int = 0
    running: bool = False
    gone: bool = False
    first_scheduled: float = math.nan
    first_token: float = math.nan
    last_token: float = math.nan
    finish: float = math.nan
    left: float = math.nan
    target: int = field(init=False)  # tokens to prefill before the next decode

    def __post_init__(self) -> None:
        self.target = self.row.prompt_tokens

    @property
    def work(self) -> int:
        """Tokens it has still to be given: s + o - 1 in all, or s + o with a separate first token."""
        return self.row.prompt_tokens + self.row.output_tokens - 1 + self.separate - self.computed

    @property
    def usable(self) -> int:
        """Tokens of it that one batch may take."""
        return max(1, self.target - self.computed)

    def lose_everything(self) -> None:
        self.recomputed += self.computed
        self.preemptions += 1
        self.computed = 0
        self.target = self.row.prompt_tokens + self.generated
        self.running = False


def check_run(result: ls.Result, scheduler: ls.Scheduler, calls: Sequence[Call] = ()) -> None:
    """Assert that the rows of a run with entries are those of one feasible run that accounts for every token.

    `calls` says when requests were preempted and rejected, which the rows do not; empty for runs without.
    """
    book = Book(result, scheduler, calls)
    entries, first = result.batch_entries, 0
    for k, batch in enumerate(result.batches):
        stop = first + np.count_nonzero(entries.batch == k)
        assert (entries.batch[first:stop] == k).all()
        book.follow(batch, entries[first:stop])
        first = stop
    assert first == len(entries)
    book.close()


class Book:
    def __init__(self, result: ls.Result, scheduler: ls.Scheduler, calls: Sequence[Call]) -> None:
        params = dict(zip(scheduler.params, scheduler.param_values(), strict=True))
        self.result, self.scheduler, self.engine = result, scheduler, result.engine
        self.budget = min(self.engine.token_budget, params.get("token_budget", math.inf))
        self.seats = min(self.engine.max_num_seqs or math.inf, params.get("max_num_seqs", math.inf))
        self.calls = deque(calls)
        self.requests = [Request(row, self.engine.separate) for row in result.requests]
        turned_away = {i for call in calls for i in call.rejected}
        self.never_fit = []  # those that could never finish, or whose prompt no batch can take
        for i, request in enumerate(self.requests):
            if request.row.status == "rejected" and i not in turned_away:
                self.never_fit.append(request)
                most = (self.engine.kv_blocks or math.inf) * self.engine.block_size
                assert request.work > most or (not calls and request.row.prompt_tokens > self.budget)
        self.ends = 0.0  # of the batch before
        self.gaps: dict[tuple[float, float], int] = {}
        self.preempted = self.lost = 0

    def present(self, clock: float) -> list[Request]:
        return [r for r in self.requests if r.row.arrival <= clock and not r.gone]

    def hear(self, clock: float) -> None:
        """Carry out the preemptions and rejections of all calls up to `clock`."""
        self.preempted = self.lost = 0
        for request in self.never_fit:
            if request.row.left <= clock:
                request.gone, request.left = True, request.row.left
        while self.calls and self.calls[0].clock <= clock:
            call = self.calls.popleft()
            for i in call.preempted:
                self.lost += self.requests[i].computed
                self.preempted += 1
                self.requests[i].lose_everything()
            for i in call.rejected:
                assert not self.requests[i].running
                self.requests[i].gone, self.requests[i].left = True, call.clock
            for i in call.batch:
                self.requests[i].first_scheduled = np.fmin(self.requests[i].first_scheduled, call.clock)

    def follow(self, batch: np.record, entries: np.recarray) -> None:
        assert batch.start >= self.ends - 1e-9  # batches are not preempted
        self.hear(batch.start)
        present, engine = self.present(batch.start), self.engine
        demand = [(r, r.usable) for r in present]
        backlog = sum(r.work for r in present)

        taken = [(self.requests[entry.request], int(entry.tokens), entry.is_prefill) for entry in entries]
        assert len(set(entries.request)) == len(entries) > 0
        decode_kv = pairs = context = 0
        for request, tokens, is_prefill in taken:
            assert request in present
            assert is_prefill == (request.computed < request.target)  # (6a)
            assert 1 <= tokens <= request.usable  # (6b), (6c)
            request.running = True
            request.first_scheduled = np.fmin(request.first_scheduled, batch.start)
            if is_prefill:
                pairs += sum(request.computed + k for k in range(1, tokens + 1))
                context += request.computed
            else:
                decode_kv += request.computed
        total = sum(tokens for _, tokens, _ in taken)
        assert total <= self.budget and len(taken) <= self.seats  # (6d)
        held = {id(r): r.computed for r in present if r.running}
        for request, tokens, _ in taken:
            held[id(request)] += tokens
        blocks = sum(math.ceil(tokens / engine.block_size) for tokens in held.values())
        if self.scheduler.reserves_kv:
            assert blocks <= batch.kv_blocks_used
        else:
            assert blocks == batch.kv_blocks_used
        assert batch.kv_blocks_used <= (engine.kv_blocks or math.inf)

        assert batch.prefill_tokens == sum(tokens for _, tokens, is_prefill in taken if is_prefill)
        assert batch.decode_tokens == sum(tokens for _, tokens, is_prefill in taken if not is_prefill)
        assert batch.num_seqs == len(taken)
        assert batch.num_in_system == len(present)
        assert batch.num_waiting == sum(not r.running for r in present)
        assert batch.backlog == backlog
        assert (batch.preemptions, batch.recomputed) == (self.preempted, self.lost)
        seconds = engine.batch_time.seconds(total, decode_kv, pairs, context, len(taken))
        seconds += engine.host_overhead[0] + engine.host_overhead[1] * len(taken)
        assert math.isclose(batch.duration, seconds, rel_tol=0, abs_tol=1e-9)
        self.check_claims(batch, demand, taken, total)
        self.ends = batch.start + batch.duration
        for request, tokens, is_prefill in taken:
            self.give(request, tokens, is_prefill)

    def check_claims(self, batch: np.record, demand: list, taken: list, total: int) -> None:
        """What the scheduler says about itself."""
        scheduler, unlimited = self.scheduler, self.engine.kv_blocks is None
        if not scheduler.mixes_phases:
            assert batch.prefill_tokens == 0 or batch.decode_tokens == 0
        if not scheduler.chunks_prefill:
            assert all(tokens == r.usable for r, tokens, is_prefill in taken if is_prefill)
        if scheduler.work_conserving and unlimited:
            if self.seats == math.inf:
                assert total == min(self.budget, sum(usable for _, usable in demand))  # (8)-(9)
            given = {id(r): tokens for r, tokens, _ in taken}
            full = len(taken) >= self.seats
            for request, usable in demand:  # maximality: nobody present could get one more token
                got = given.get(id(request), 0)
                assert total == self.budget or got == usable or (got == 0 and full)
            idled = batch.start > self.ends + 1e-9
            assert not idled or all(request.row.arrival > self.ends for request, _ in demand)

    def give(self, request: Request, tokens: int, is_prefill: bool) -> None:
        """Tokens of a batch that has ended."""
        request.computed += tokens
        if is_prefill and (request.computed < request.target or self.engine.separate):
            return
        request.generated += 1
        if request.generated == 1:
            request.first_token = self.ends
        else:
            key = (round(self.ends, 6), round(self.ends - request.last_token, 6))
            self.gaps[key] = self.gaps.get(key, 0) + 1
        request.last_token = self.ends
        if request.generated == request.row.output_tokens:
            request.running, request.gone = False, True
            request.finish = request.left = self.ends

    def close(self) -> None:
        """The rows of the requests say the same as their entries."""
        result = self.result
        self.hear(result.end)
        for request in self.requests:
            row = request.row
            for name in ("computed", "generated", "recomputed", "preemptions"):
                assert row[name] == getattr(request, name), name
            for name in ("first_scheduled", "first_token", "finish", "left"):
                assert np.isclose(row[name], getattr(request, name), rtol=0, atol=1e-9, equal_nan=True), name
            assert (row.status == "finished") == (request.generated == row.output_tokens)
            assert (row.status == "active") == (not request.gone)
        assert self.ends <= result.end + 1e-9
        gaps: dict[tuple[float, float], int] = {}
        for time, gap, count in result.token_gaps:
            key = (round(time, 6), round(gap, 6))
            gaps[key] = gaps.get(key, 0) + int(count)
        assert gaps == self.gaps
        entries = result.batch_entries
        assert entries.tokens.sum() == result.requests.computed.sum() + result.requests.recomputed.sum()
