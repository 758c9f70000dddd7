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
    generated. Rows do not say which request was preempted when, only how often, and in which batches somebody was. A
    life is taken to end in the first of these batches after its last entry.

    Attributes:
        result: the run.
        work: i8[n], tokens that each request brings.
        batch, request, tokens, is_prefill: columns of the entries, here and below sorted by request, then batch.
        first: bool[e], whether it begins a life.
        last: bool[e], whether it is the last one of its request.
        computed: i8[e], KV tokens of the request before.
        target: i8[e], tokens it has to prefill in this life.
        generated: i8[e], output tokens before.
        yields: bool[e], whether an output token comes of it.
        lost_in: i8[e], the batch in whose composition the life that ends with this entry was preempted; -1: none.
        inconsistent: numbers of preempted requests of whose entries no sequence of lives makes sense.
        uncertain: bool[b], batches at which it is open who of the preempted had gone already.

    Raises:
        ValueError: if the run was recorded without entries.
    """

    def __init__(self, result: Result) -> None:
        if result.batch_entries is None:
            raise ValueError('checks need the entries of the batches; simulate with record="entries"')
        self.result = result
        rows, entries, separate = result.requests, result.batch_entries, result.engine.separate
        self.work = rows.prompt_tokens + rows.output_tokens - 1 + separate
        order = np.argsort(entries.request, kind="stable")  # batches are in order already
        self.batch, self.request, self.tokens, self.is_prefill = (
            np.ascontiguousarray(entries[name][order]) for name in ("batch", "request", "tokens", "is_prefill")
        )
        n = len(self.batch)
        new = np.ones(n, dtype=bool)
        new[1:] = self.request[1:] != self.request[:-1]
        self.last = np.append(new[1:], True)[:n]
        self.first = new.copy()
        self.target = rows.prompt_tokens[self.request]
        self.inconsistent: list[int] = []
        self._find_lives()
        self.computed = _sum_before(self.tokens, self.first)
        done = self.computed + self.tokens
        self.yields = ~self.is_prefill | ((done >= self.target) & (not separate))
        self.generated = _sum_before(self.yields, new)
        self._date_preemptions()

    @property
    def ends(self) -> np.ndarray:
        """f8[b]: when each batch ended, s."""
        return self.result.batches.start + self.result.batches.duration

    @property
    def finishes(self) -> np.ndarray:
        """bool[e]: whether the request is done after this entry."""
        output = self.result.requests.output_tokens[self.request]
        return self.yields & (self.generated + 1 == output)

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

    def _find_lives(self) -> None:
        preempted = np.flatnonzero(self.result.requests.preemptions > 0)
        bounds = np.searchsorted(self.request, [preempted, preempted + 1])
        for i, begin, end in zip(preempted.tolist(), *bounds.tolist(), strict=True):
            lives = self._lives(i, slice(begin, end))
            if lives is None:
                self.inconsistent.append(i)
                continue
            for place, target in lives:
                self.first[begin + place] = True
                self.target[begin + place : end] = target

    def _lives(self, i: int, own: slice) -> list[tuple[int, int]] | None:
        """Where each life of request `i` begins among its entries, and its target; None if nothing fits the rows.

        All ways to cut the entries into lives are followed side by side; they differ in few states.
        """
        row, separate = self.result.requests[i], self.result.engine.separate
        states = {(0, int(row.prompt_tokens), 0, 0): []}  # computed, target, generated, lives ended -> lives begun
        for place, (tokens, is_prefill) in enumerate(zip(self.tokens[own].tolist(), self.is_prefill[own], strict=True)):
            following: dict[tuple[int, int, int, int], list] = {}
            for (computed, target, generated, ended), lives in states.items():
                ways = [(computed, target, ended, lives)] if place else [(0, target, ended, [(0, target)])]
                if place and is_prefill:
                    again = int(row.prompt_tokens) + generated
                    ways.append((0, again, ended + 1, [*lives, (place, again)]))
                for before, goal, over, begun in ways:
                    if is_prefill != (before < goal) or (is_prefill and before + tokens > goal):
                        continue
                    more = not is_prefill or (before + tokens == goal and not separate)
                    following.setdefault((before + tokens, goal, generated + more, over), begun)
            states = following
        for (computed, _, generated, ended), lives in states.items():
            gone = row.computed == 0 and ended + 1 == row.preemptions  # preempted after its last entry
            kept = computed == row.computed and ended == row.preemptions
            if generated == row.generated and (gone or kept):
                return lives
        return None

    def _date_preemptions(self) -> None:
        rows, batches = self.result.requests, self.result.batches
        self.lost_in = np.full(len(self.batch), -1)
        self.uncertain = np.zeros(len(batches), dtype=bool)
        guilty = np.flatnonzero(batches.preemptions > 0)
        for e in np.flatnonzero(rows.preemptions[self.request] > 0).tolist():
            if self.last[e]:
                row = rows[self.request[e]]
                if row.computed > 0 or row.status == "finished":
                    continue
                until = len(batches) - 1
            elif self.first[e + 1]:
                until = self.batch[e + 1]
            else:
                continue
            low, high = np.searchsorted(guilty, [self.batch[e], until], "right")
            if low < high:
                self.lost_in[e] = guilty[low]
                self.uncertain[guilty[low] : guilty[high - 1] + 1] |= high - low > 1


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
