"""The history of every request of a run, reconstructed from the rows of its batch entries alone."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from llmsched_env.results.records import Result

TIME_TOLERANCE = 1e-9
"""In s; relative to the clock where that is above 1 s."""


class RunHistory:
    """The state of requests before each entry of a run, reconstructed from the entries alone.

    A preempted request starts a new attempt: its KV tokens are gone, and it must prefill its prompt and the tokens that
    it has generated again, except for those then found in the prefix cache. A request that was swapped out continues
    its attempt. A new attempt starts where the context of an entry is not the sum of the entries before it. Rows tell
    how often a request was preempted and which batches preempted somebody, but not which request was preempted when.
    An attempt is taken to end in the first preempting batch after its last entry.

    "Before" an entry means before the decision. With `schedule_ahead` the decision comes before the end of the batch
    that is running then; the tokens of that batch count as computed, as they do in the engine.

    n is the number of requests, b of batches and e of entries. Entries are sorted by request, then batch.

    Attributes:
        result: the run.
        batches: its `BATCH_DTYPE` records.
        work: i8[n], tokens that each request brings.
        batch: i8[e], its batch.
        request: i8[e], its request.
        tokens: i8[e], its tokens.
        is_prefill: bool[e], whether they are prefill tokens.
        computed: i8[e], KV tokens of the request before.
        starts_attempt: bool[e], whether it starts an attempt.
        is_last: bool[e], whether it is the last entry of its request.
        prefill_target: i8[e], tokens to prefill in this attempt.
        generated: i8[e], output tokens before.
        produces: bool[e], whether it yields an output token, even if its client has left.
        preempted_in: i8[e], the batch whose composition preempted the attempt that ends with this entry; -1: none.
        hidden: bool[n], requests with preemptions that no entry shows: they were swapped out, found all of their
            tokens cached, or were preempted again before their next entry.
        inconsistent: row numbers of requests whose entries are not explained by their preemptions and prefix hits.
        uncertain: bool[b], batches for which the preempted requests cannot be told for certain.

    Raises:
        ValueError: if the run was recorded without entries.
    """

    def __init__(self, result: Result) -> None:
        if result.batches is None or result.batch_entries is None or result.entry_contexts is None:
            raise ValueError('checks need the entries of the batches; simulate with record="entries"')
        self.result = result
        self.batches = result.batches
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
        self.is_last = np.append(new[1:], True)[:n]
        self.starts_attempt = new.copy()
        self.starts_attempt[1:] |= self.computed[1:] != self.computed[:-1] + self.tokens[:-1]
        self.prefill_target = rows.prompt_tokens[self.request]
        self._follow_attempts(np.append(np.flatnonzero(new), n))
        self.produces = ~self.is_prefill | ((self.done >= self.prefill_target) & (not result.engine.separate))
        self.generated = _sum_before(self.produces, new)
        self._date_preemptions()
        self._compare_with_rows()

    @property
    def done(self) -> np.ndarray:
        """i8[e]: KV tokens of the request after this entry."""
        tokens: np.ndarray = self.computed + self.tokens
        return tokens

    @property
    def slack(self) -> float:
        """Tolerance of times, s."""
        return TIME_TOLERANCE * max(1.0, abs(self.result.end))

    @cached_property
    def ends(self) -> np.ndarray:
        """f8[b]: end of each batch, s."""
        ends: np.ndarray = self.batches.start + self.batches.duration
        return ends

    @cached_property
    def yields(self) -> np.ndarray:
        """bool[e]: whether it yields an output token that its client still waits for.

        If the client timed out at the end of the batch, up to rounding, the row of the request decides.
        """
        rows, slack = self.result.requests, self.slack
        gave_up = np.where(rows.status == "abandoned", rows.left, math.inf)[self.request]
        ends = self.ends[self.batch]
        tie = (np.abs(ends - gave_up) <= slack) & (self.generated < rows.generated[self.request])
        yields: np.ndarray = self.produces & ((ends < gave_up - slack) | tie)
        return yields

    @property
    def completes(self) -> np.ndarray:
        """bool[e]: whether it computes the last token of its request."""
        wanted = self.result.requests.output_tokens[self.request]
        completes: np.ndarray = self.produces & (self.generated + 1 == wanted)
        return completes

    @property
    def finishes(self) -> np.ndarray:
        """bool[e]: whether the request finishes with this entry."""
        finishes: np.ndarray = self.yields & self.completes
        return finishes

    def decided_from(self, time: np.ndarray) -> np.ndarray:
        """The first batch decided at `time` (s) or later; the number of batches if there is none or `time` is nan."""
        return np.searchsorted(self.batches.decided, time)

    def last_entries(self, b: int, requests: np.ndarray) -> np.ndarray:
        """The last entry of each of these requests up to batch `b`; -1: none."""
        num = len(self.batches)
        last = np.searchsorted(self._keys, requests * num + b, "right") - 1
        return np.where((last >= 0) & (self.request[last] == requests), last, -1)

    @cached_property
    def _keys(self) -> np.ndarray:
        keys: np.ndarray = self.request * len(self.batches) + self.batch
        return keys

    def per_batch(self, values: np.ndarray | int, where: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Sums of a column of the entries by batch, f8[b]."""
        weights = np.broadcast_to(values, self.batch.shape)[where]
        return np.bincount(self.batch[where], weights=weights, minlength=len(self.batches))

    def _follow_attempts(self, bounds: np.ndarray) -> None:
        """Set the prefill target of every attempt; find those that start where the last one ended."""
        preempted = self.result.requests.preemptions > 0
        for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            i = self.request[begin]
            if not preempted[i]:
                continue
            prompt, target, generated = self.prefill_target[begin], self.prefill_target[begin], 0
            for e in range(begin, end):
                if self.is_prefill[e] and self.computed[e] >= target:  # all of its tokens were cached
                    self.starts_attempt[e] = True
                if self.starts_attempt[e]:
                    target = prompt + generated
                self.prefill_target[e] = target
                more = not self.is_prefill[e] or self.computed[e] + self.tokens[e] >= target
                generated += more and not (self.is_prefill[e] and self.result.engine.separate)

    def _date_preemptions(self) -> None:
        rows, batches = self.result.requests, self.batches
        self.preempted_in = np.full(len(self.batch), -1)
        self.uncertain = np.zeros(len(batches), dtype=bool)
        preempting = np.flatnonzero(batches.preemptions > 0)
        cut_off = rows.preemptions.sum() > batches.preemptions.sum()  # some belong to batches that never ended
        # A request ends with the tokens of its last attempt, unless these were lost as well.
        over = np.append(self.starts_attempt[1:] & ~self.is_last[:-1], False)[: len(self.is_last)]
        over |= self.is_last & (rows.computed[self.request] != self.done)
        shown = np.bincount(self.request[over], minlength=len(rows))
        self.hidden = rows.preemptions > shown
        self.shown_preemptions = shown
        for e in np.flatnonzero(rows.preemptions[self.request] > 0).tolist():
            until = len(batches) - 1 if self.is_last[e] else self.batch[e + 1]
            low, high = np.searchsorted(preempting, [self.batch[e], until], "right")
            if low == high:
                continue
            if over[e]:
                self.preempted_in[e] = preempting[low]
                if self.is_last[e] and cut_off:
                    self.uncertain[preempting[low] :] = True
                self.uncertain[preempting[low] : preempting[high - 1] + 1] |= high - low > 1
            elif self.hidden[self.request[e]]:
                self.uncertain[preempting[low] : until + 1] = True

    def _compare_with_rows(self) -> None:
        """Find requests with fewer preemptions or prefix hits than their attempts show."""
        rows, hits = self.result.requests, self.prefix_hits
        by_request = np.bincount(self.request, weights=hits, minlength=len(rows))
        wrong = (self.shown_preemptions > rows.preemptions) | (by_request > rows.prefix_hit)
        engine = self.result.engine
        if not engine.prefix_caching and engine.swap_blocks == 0:  # attempts then show all preemptions but the last
            wrong |= (rows.status == "finished") & self.hidden
        self.inconsistent = np.flatnonzero(wrong).tolist()

    @property
    def prefix_hits(self) -> np.ndarray:
        """i8[e]: tokens found in the prefix cache by an attempt that starts with this entry."""
        return np.where(self.starts_attempt, self.computed, 0)


def history_of(run: Result | RunHistory) -> RunHistory:
    """The history of a run, computed unless it is given."""
    return run if isinstance(run, RunHistory) else RunHistory(run)


def kv_blocks(tokens: np.ndarray, block_size: int) -> np.ndarray:
    """KV blocks that hold this many tokens."""
    return -(-tokens // block_size)


def _sum_before(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Running sums before each entry, restarting at every `first`."""
    total = np.cumsum(values) - values
    starts = np.flatnonzero(first)
    before: np.ndarray = total - np.repeat(total[starts], np.diff(np.append(starts, len(values))))
    return before
