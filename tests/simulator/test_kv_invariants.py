"""Blocks of the KV cache under any workload and any action, against an independent count at every decision."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines
from llmsched_env import testing
from llmsched_env.compiled import interpreted
from llmsched_env.simulator import state as s
from llmsched_env.simulator.kv_cache import cached_tokens
from llmsched_env.simulator.simulator import Simulator
from tests.simulator.anything import ANYTHING
from tests.simulator.cases import LONG, assert_same_rows, bound, memory_cases, run


class Books:
    """Counts the blocks of an engine from what its requests hold, before and after each decision."""

    def __init__(self, scheduler, engine, requests):
        self.compose, self.engine = interpreted(scheduler.compose), engine
        self.clock = 0.0
        self.lost = np.zeros(requests, np.int64)
        self.arrived, self.finished = Counter(), Counter()

    def __call__(self, view):
        self.check_news(view)
        self.check_memory(view)
        wake = self.compose(view)
        self.check_memory(view)
        self.check_batch(view)
        req = view.req
        gone = np.isin(req.phase, (s.PREEMPTED, s.EVICTED)) & (req.swapped == 0)
        self.lost[gone] += req.computed[gone]
        return wake

    def check_news(self, view):
        assert view.clock >= self.clock
        self.clock = view.clock
        self.arrived.update(view.arrived.tolist())
        self.finished.update(view.finished.tolist())
        assert max(self.arrived.values(), default=1) == max(self.finished.values(), default=1) == 1
        assert self.finished.keys() <= self.arrived.keys()
        assert sorted(view.waiting) == np.flatnonzero(view.req.phase == s.WAITING).tolist()
        assert sorted(view.running) == np.flatnonzero(np.isin(view.req.phase, (s.RUNNING, s.LAST_TOKEN))).tolist()

    def check_memory(self, view):
        req, size, total = view.req, self.engine.block_size, view.kv.total
        holds = np.isin(req.phase, (s.RUNNING, s.LAST_TOKEN)) | ((req.phase == s.WAITING) & (req.scheduled > 0))
        needed = -(-(req.computed + req.scheduled) // size)
        assert np.array_equal(req.kv_blocks, np.where(holds, np.maximum(needed, req.reserved), 0))
        assert not req.reserved[~holds].any()
        waits = (req.phase == s.WAITING) & (req.scheduled == 0)
        assert ((req.computed == 0) | (req.swapped * size >= req.computed))[waits].all()
        assert not req.swapped[~np.isin(req.phase, (s.WAITING, s.PREEMPTED, s.EVICTED, s.REJECTED))].any()
        assert view.kv.swap_free == self.engine.swap_blocks - req.swapped.sum() >= 0
        named = Counter()
        if self.engine.prefix_caching:
            for i in np.flatnonzero(holds):
                named.update(self.name(view, i, place) for place in range(req.computed[i] // size))
            self.check_cache(view, named)
        own = req.kv_blocks[holds].sum() - named.total()
        used = own + len(named)
        assert view.kv.free == total - used
        assert 0 <= used <= total == self.engine.kv_blocks

    def name(self, view, i, place):
        """The earliest request along the parents with all tokens up to the end of this block, and the place."""
        while view.req.parent[i] >= 0 and (place + 1) * self.engine.block_size <= view.req.shared_tokens[i]:
            i = view.req.parent[i]
        return int(i), place

    def check_cache(self, view, named):
        """The cache holds each block once, with as many holders as requests have it, and all idle ones in its list."""
        entries, size = view.prefixes.entries, self.engine.block_size
        live = [int(e) for e in view.prefixes.slots if e > 0]
        refs = {(int(entries[e].owner), int(entries[e].place)): int(entries[e].holders) for e in live}
        assert len(refs) == len(live)
        assert {name: count for name, count in refs.items() if count} == dict(named)
        idle = self.chain(entries.newer)
        assert idle == self.chain(entries.older)[::-1]
        assert sorted(idle) == sorted(e for e in live if entries[e].holders == 0)
        assert view.kv.cached == len(idle) <= view.kv.free
        for i in np.flatnonzero(view.req.phase == s.WAITING):
            cached = [self.name(view, i, p) in refs for p in range(view.req.prompt_tokens[i] // size)]
            assert sorted(cached, reverse=True) == cached  # never a block without those before it
            if view.req.scheduled[i] == 0:
                whole = (view.req.prefill_tokens[i] - 1) // size  # the last token is always computed
                leading = 0
                while leading < whole and self.name(view, i, leading) in refs:
                    leading += 1
                assert cached_tokens.py_func(view, i) == leading * size

    @staticmethod
    def chain(link):
        found, e = [], link[0]
        while e != 0:
            found.append(int(e))
            e = link[e]
        return found

    def check_batch(self, view):
        req, counts = view.req, view.batch.counts
        batch = view.batch.requests[: counts.num_seqs]
        assert len(set(batch)) == len(batch)
        assert sorted(batch) == np.flatnonzero(req.scheduled).tolist()
        assert counts.tokens == req.scheduled.sum() == counts.prefill_tokens + counts.decode_tokens
        enters = (req.phase == s.WAITING) & (req.scheduled > 0)
        leaves = np.isin(req.phase, (s.PREEMPTED, s.EVICTED))
        assert counts.admitted == np.count_nonzero(enters) and counts.preemptions == np.count_nonzero(leaves)
        assert counts.prefix_hits == req.computed[enters & (req.swapped == 0)].sum()
        assert counts.swapped == req.swapped[enters | leaves].sum()


def watched_run(scheduler, case, horizon):
    """Run with the books open all the time; returns the result and the books."""
    table = case.workload.sample(0)
    books = Books(scheduler, case.engine, len(table))
    watched = dataclasses.replace(scheduler, compose=books)
    simulator = Simulator(case.engine, watched, record="entries", interpreted=True)
    simulator.load(0, table)
    reason = simulator.advance(0, horizon)
    view = simulator.view(0)
    in_the_end = view.batch.counts_record.copy()
    view.batch.counts_record[:] = np.zeros((), in_the_end.dtype)
    books.check_memory(view)  # whoever left has given back what it held
    view.batch.counts_record[:] = in_the_end
    return simulator.result(0, table, case.workload.name, reason=reason), books


def check_run(scheduler, case, horizon):
    result, books = watched_run(scheduler, case, horizon)
    compiled = run(scheduler, case, horizon)
    assert result.requests.tobytes() == compiled.requests.tobytes()
    assert result.batches.tobytes() == compiled.batches.tobytes()
    assert testing.check_run(result, scheduler) == []
    rows, batches = result.requests, result.batches
    assert (rows.computed >= 0).all() and (rows.recomputed >= 0).all() and (rows.prefix_hit >= 0).all()
    assert (np.diff(batches.start) > 0).all() and (np.diff(batches.decided) >= 0).all()
    assert (batches.kv_blocks_used <= case.engine.kv_blocks).all()
    given = np.bincount(result.batch_entries.request, result.batch_entries.tokens, len(rows))
    assert np.array_equal(given, rows.computed + rows.recomputed - rows.prefix_hit)
    finished = rows.status == "finished"
    assert np.array_equal(rows.generated[finished], rows.output_tokens[finished])
    assert (rows.generated < rows.output_tokens)[~finished].all()
    late = rows.left - rows.arrival - case.workload.sample(0).timeout[: len(rows)]
    assert (np.nan_to_num(late, nan=-1.0, posinf=0.0, neginf=-1.0) <= 1e-9).all()
    assert (np.abs(late[rows.status == "abandoned"]) <= 1e-9).all()
    if result.drained and horizon == LONG:
        assert np.array_equal(rows.recomputed, books.lost[: len(rows)])  # lost once, counted once
    return result


SCHEDULERS = pytest.mark.parametrize("scheduler", baselines.REGISTRY.values(), ids=baselines.REGISTRY)
HORIZONS = st.just(LONG) | st.floats(0.1, 6.0)


@SCHEDULERS
@settings(max_examples=30, deadline=None)
@given(case=memory_cases(), horizon=HORIZONS)
def test_registry(scheduler, case, horizon):
    check_run(bound(scheduler, case), case, horizon)


@settings(max_examples=200, deadline=None)
@given(case=memory_cases(), horizon=st.floats(0.1, 30.0))
def test_random_actions(case, horizon):
    check_run(ANYTHING, case, horizon)


@pytest.mark.parametrize("name", ["sarathi", "vllm_v1", "sglang"])
@settings(max_examples=40, deadline=None)
@given(case=memory_cases())
def test_prefix_caching_changes_nothing_where_nothing_is_shared_or_lost(name, case):
    """Without parents, and with memory enough that nobody is preempted, there is nothing to be found in the cache."""
    table = case.workload.sample(0)
    alone = dataclasses.replace(table, parent=np.full(len(table), -1), shared_tokens=np.zeros(len(table), np.int64))
    workload = type(case.workload).from_table(alone, "alone")
    rows = []
    for caching in (False, True):
        engine = dataclasses.replace(case.engine, kv_blocks=400, prefix_caching=caching, swap_blocks=0)
        rows.append(run(baselines.get(name), case._replace(workload=workload, engine=engine)))
    assert_same_rows(*rows)
    assert rows[0].requests.preemptions.sum() == 0 and math.isnan(rows[0].stalled_since)
