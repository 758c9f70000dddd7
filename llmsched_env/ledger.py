"""What the entries of a run say about its requests: a second set of books, kept from rows alone."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llmsched_env.simulator.records import Result


class Ledger:
    """The state of requests before each entry of a run, worked out from the entries and nothing else.

    A preempted request starts a new life: its KV tokens are gone, and it must prefill its prompt and what it has
    generated, from what it then finds in the prefix cache on. One that was swapped out lives on. Where the context of
    an entry is not what the entries before it add up to, a life begins. Rows do not say which request was preempted
    when, only how often, and in which batches somebody was: a life is taken to end in the first of these batches after
    its last entry.

    "Before" is before the decision, which with `schedule_ahead` comes before the batch that runs then has ended; its
    tokens count all the same, as they do in the engine.

    Attributes:
        result: the run.
        work: i8[n], tokens that each request brings.
        batch, request, tokens, is_prefill: columns of the entries, here and below sorted by request, then batch.
        computed: i8[e], KV tokens of the request before.
        first: bool[e], whether it begins a life.
        last: bool[e], whether it is the last one of its request.
        target: i8[e], tokens it has to prefill in this life.
        generated: i8[e], output tokens before.
        produces: bool[e], whether an output token comes of it, wanted or not.
        lost_in: i8[e], the batch in whose composition the life that ends with this entry was preempted; -1: none.
        hidden: bool[n], requests with preemptions that no entry shows: they were swapped out, found all of their
            tokens cached, or were preempted again before another entry was written.
        inconsistent: numbers of requests whose entries are not explained by their preemptions and prefix hits.
        uncertain: bool[b], batches at which it is open who of the preempted had gone already, or was away.

    Raises:
        ValueError: if the run was recorded without entries.
    """

    def __init__(self, result: Result) -> None:
        if result.batch_entries is None or result.entry_contexts is None:
            raise ValueError('checks need the entries of the batches; simulate with record="entries"')
        self.result = result
        rows, entries = result.requests, result.batch_entries
        self.work = rows.prompt_tokens + rows.output_tokens - 1 + result.engine.separate
        order = np.argsort(entries.request, kind="stable")  # batches are in order already
        self.batch, self.request, self.tokens, self.is_prefill = (
            np.ascontiguousarray(entries[name][order]) for name in ("batch", "request", "tokens", "is_prefill")
        )
        self.computed = result.entry_contexts[order]
        n = len(self.batch)
        new = np.ones(n, dtype=bool)
        new[1:] = self.request[1:] != self.request[:-1]
        self.last = np.append(new[1:], True)[:n]
        self.first = new.copy()
        self.first[1:] |= self.computed[1:] != self.computed[:-1] + self.tokens[:-1]
        self.target = rows.prompt_tokens[self.request]
        self._follow_lives(np.append(np.flatnonzero(new), n))
        self.produces = ~self.is_prefill | ((self.done >= self.target) & (not result.engine.separate))
        self.generated = _sum_before(self.produces, new)
        self._date_preemptions()
        self._compare_with_rows()

    @property
    def done(self) -> np.ndarray:
        """i8[e]: KV tokens of the request after this entry."""
        return self.computed + self.tokens

    @cached_property
    def ends(self) -> np.ndarray:
        """f8[b]: when each batch ended, s."""
        return self.result.batches.start + self.result.batches.duration

    @cached_property
    def yields(self) -> np.ndarray:
        """bool[e]: whether an output token comes of it and its client still waits for it.

        Where the client gave up as the batch ended, as far as rounding can tell, the row of the request decides.
        """
        rows, slack = self.result.requests, 1e-9 * max(1.0, abs(self.result.end))
        gave_up = np.where(rows.status == "abandoned", rows.left, math.inf)[self.request]
        ends = self.ends[self.batch]
        tie = (np.abs(ends - gave_up) <= slack) & (self.generated < rows.generated[self.request])
        return self.produces & ((ends < gave_up - slack) | tie)

    @property
    def completes(self) -> np.ndarray:
        """bool[e]: whether it computes the last token of its request."""
        return self.produces & (self.generated + 1 == self.result.requests.output_tokens[self.request])

    @property
    def finishes(self) -> np.ndarray:
        """bool[e]: whether the request is done after this entry."""
        return self.yields & self.completes

    def decided_from(self, time: np.ndarray) -> np.ndarray:
        """The first batch that was decided at `time` (s) or later; the number of batches where none was, or for nan."""
        return np.searchsorted(self.result.batches.decided, time)

    def last_entries(self, b: int, requests: np.ndarray) -> np.ndarray:
        """The entry that each of these requests had last up to batch `b`, -1 where it had none."""
        num = len(self.result.batches)
        last = np.searchsorted(self._keys, requests * num + b, "right") - 1
        return np.where((last >= 0) & (self.request[last] == requests), last, -1)

    @cached_property
    def _keys(self) -> np.ndarray:
        return self.request * len(self.result.batches) + self.batch

    def per_batch(self, values: np.ndarray, where: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Sums of a column of the entries by batch, f8[b]."""
        values = np.broadcast_to(values, self.batch.shape)[where]
        return np.bincount(self.batch[where], weights=values, minlength=len(self.result.batches))

    def _follow_lives(self, bounds: np.ndarray) -> None:
        """Find what preempted requests have to prefill in each life, and lives that continue the last one's count."""
        preempted = self.result.requests.preemptions > 0
        for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            i = self.request[begin]
            if not preempted[i]:
                continue
            prompt, target, generated = self.target[begin], self.target[begin], 0
            for e in range(begin, end):
                if self.is_prefill[e] and self.computed[e] >= target:  # it has found all of its tokens cached
                    self.first[e] = True
                if self.first[e]:
                    target = prompt + generated
                self.target[e] = target
                more = not self.is_prefill[e] or self.computed[e] + self.tokens[e] >= target
                generated += more and not (self.is_prefill[e] and self.result.engine.separate)

    def _date_preemptions(self) -> None:
        rows, batches = self.result.requests, self.result.batches
        self.lost_in = np.full(len(self.batch), -1)
        self.uncertain = np.zeros(len(batches), dtype=bool)
        guilty = np.flatnonzero(batches.preemptions > 0)
        cut_off = rows.preemptions.sum() > batches.preemptions.sum()  # some belong to batches that never ended
        # What a request has in the end is what its last life left, unless that was lost as well.
        over = np.append(self.first[1:] & ~self.last[:-1], False)[: len(self.last)]
        over |= self.last & (rows.computed[self.request] != self.done)
        shown = np.bincount(self.request[over], minlength=len(rows))
        self.hidden = rows.preemptions > shown
        self.shown_preemptions = shown
        for e in np.flatnonzero(rows.preemptions[self.request] > 0).tolist():
            until = len(batches) - 1 if self.last[e] else self.batch[e + 1]
            low, high = np.searchsorted(guilty, [self.batch[e], until], "right")
            if low == high:
                continue
            if over[e]:
                self.lost_in[e] = guilty[low]
                if self.last[e] and cut_off:
                    self.uncertain[guilty[low] :] = True
                self.uncertain[guilty[low] : guilty[high - 1] + 1] |= high - low > 1
            elif self.hidden[self.request[e]]:
                self.uncertain[guilty[low] : until + 1] = True

    def _compare_with_rows(self) -> None:
        """Find requests with fewer preemptions or prefix hits than their lives show."""
        rows, hits = self.result.requests, self.prefix_hits
        by_request = np.bincount(self.request, weights=hits, minlength=len(rows))
        wrong = (self.shown_preemptions > rows.preemptions) | (by_request > rows.prefix_hit)
        engine = self.result.engine
        if not engine.prefix_caching and engine.swap_blocks == 0:  # lives then show all but what the end has cut off
            wrong |= (rows.status == "finished") & self.hidden
        self.inconsistent = np.flatnonzero(wrong).tolist()

    @property
    def prefix_hits(self) -> np.ndarray:
        """i8[e]: tokens found in the prefix cache as a life begins with this entry."""
        return np.where(self.first, self.computed, 0)


def blocks(tokens: np.ndarray, block_size: int) -> np.ndarray:
    """KV blocks that so many tokens take."""
    return -(-tokens // block_size)


def limits_of(ledger: Ledger, limits: dict[str, float]) -> tuple[float, float, float]:
    """Most tokens and requests of a batch, and most running requests: the engine's, or `limits` where lower."""
    engine = ledger.result.engine
    budget = min(engine.token_budget, limits.get("token_budget", math.inf))
    seats = min(engine.max_num_seqs or math.inf, limits.get("max_num_seqs", math.inf))
    return budget, seats, limits.get("max_num_active_seqs", math.inf)


def _sum_before(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Running sums that leave out the entry itself and start again at every `first`."""
    total = np.cumsum(values) - values
    starts = np.flatnonzero(first)
    return total - np.repeat(total[starts], np.diff(np.append(starts, len(values))))
