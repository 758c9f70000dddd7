"""Invariant checks: silent on correct runs of every kind, and each finds the error it is for."""

import dataclasses
import warnings
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines
import llmsched_env as ls
from llmsched_env import testing

LAW = ls.Staircase(c=0.25, a=0.125, b0=4)
SCHEDULERS = pytest.mark.parametrize("scheduler", baselines.REGISTRY.values(), ids=baselines.REGISTRY)


def run(scheduler, workload, engine, horizon=None, interpreted=False):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* stalled at ", RuntimeWarning)
        return ls.simulate(scheduler, workload, engine, horizon=horizon, record="entries", interpreted=interpreted)


def rules(violations):
    return {violation.rule for violation in violations}


def without_seats(scheduler):
    """The scheduler with no limit on requests."""
    return scheduler(max_num_seqs=inf) if "max_num_seqs" in scheduler.params else scheduler


@st.composite
def workloads(draw):
    n = draw(st.integers(1, 10))
    gaps = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    tokens = st.lists(st.integers(1, 12), min_size=n, max_size=n)
    prompt, output = draw(tokens), draw(tokens)
    parent = [draw(st.integers(-1, k - 1)) for k in range(n)]
    most = [min(prompt[k], prompt[p] + output[p]) if p >= 0 else 0 for k, p in enumerate(parent)]
    return ls.Workload.from_arrays(
        np.cumsum(gaps) * 0.125,
        prompt,
        output,
        parent=parent,
        shared_tokens=[draw(st.integers(0, m)) for m in most],
        timeout=draw(st.lists(st.integers(1, 60).map(lambda t: 0.125 * t), min_size=n, max_size=n) | st.none()),
    )


@st.composite
def engines(draw, limited=True):
    return ls.EngineConfig(
        draw(st.sampled_from([LAW, ls.Roofline(0.25, 0.03, 0.02, 4, 0.001, 0.002, 0.004), ls.Hinge(0.3, 0.07, 3)])),
        token_budget=draw(st.integers(2, 24)),
        max_num_seqs=draw(st.none() | st.integers(1, 5)) if limited else None,
        kv_blocks=draw(st.none() | st.integers(4, 12)) if limited else None,
        block_size=draw(st.integers(1, 4)),
        first_token=draw(st.sampled_from(["with_prefill", "separate"])),
        schedule_ahead=draw(st.integers(0, 1)),
        prefix_caching=draw(st.booleans()),
        host_overhead=draw(st.sampled_from([(0.0, 0.0), (0.03, 0.003)])),
    )


@SCHEDULERS
@settings(max_examples=40, deadline=None)
@given(workload=workloads(), engine=engines(), horizon=st.sampled_from([400.0, 2.5]))
def test_no_scheduler_breaks_a_rule_or_its_claims(scheduler, workload, engine, horizon):
    result = run(scheduler, workload, engine, horizon)
    assert testing.check_run(result, scheduler) == []


@SCHEDULERS
@settings(max_examples=40, deadline=None)
@given(workload=workloads(), engine=engines(limited=False))
def test_registry_declares_work_conservation_truly_if_it_declares_it(scheduler, workload, engine):
    scheduler = without_seats(scheduler)
    result = run(scheduler, workload, engine, 400.0)
    if scheduler.work_conserving:
        assert testing.work_conservation(result, scheduler) == []
        assert testing.maximality(result, scheduler) == []


@SCHEDULERS
def test_registry_does_not_deny_work_conservation_without_reason(scheduler):
    """Busy runs in which any scheduler that is not work-conserving leaves tokens out of a batch.

    One with a watermark holds back only where memory is short, one with latency targets only for their sake and beyond
    its least chunk.
    """
    scheduler = without_seats(scheduler)
    if "watermark" in scheduler.params and not scheduler.work_conserving:
        scheduler = scheduler(watermark=0.4)
    if "min_chunk" in scheduler.params:
        scheduler = scheduler(min_chunk=1)
    workload = ls.Workload.poisson(2.0, ls.dist.Geometric(10), ls.dist.Geometric(8), 60.0)
    workload = workload.with_slo(ls.SLO(ttft=2.0, tpot=0.5))
    claimed = dataclasses.replace(scheduler, work_conserving=True)
    found = []
    for kv_blocks in (None, 100):
        engine = ls.EngineConfig(LAW, token_budget=64, kv_blocks=kv_blocks, block_size=1)
        result = run(scheduler, workload, engine)
        assert testing.check_run(result, scheduler) == []
        own = (testing.maximality if kv_blocks else testing.work_conservation)(result, scheduler)
        assert testing.claims(result, claimed) == own
        found += own
    assert bool(found) == (not scheduler.work_conserving)


# A: prompt of 3, B: prompt of 2, budget 4: A3 B1 | A B1 | A B | B, in batches of 0.375 s.
EXACT = ls.Workload.from_arrays([0.0, 0.0], [3, 2], [3, 3])
ENGINE = ls.EngineConfig(LAW, token_budget=4, kv_blocks=8, block_size=2, max_num_seqs=3)


def exact_run():
    result = run(baselines.sarathi, EXACT, ENGINE)
    entries = [(e.batch, e.request, e.tokens, bool(e.is_prefill)) for e in result.batch_entries]
    assert entries == [
        (0, 0, 3, True), (0, 1, 1, True), (1, 0, 1, False), (1, 1, 1, True), (2, 0, 1, False), (2, 1, 1, False),
        (3, 1, 1, False),
    ]  # fmt: skip
    assert testing.check_run(result, baselines.sarathi) == []
    return result


def altered(result, table, row, **values):
    """The run with other values in a row of a table."""
    rows = getattr(result, table).copy()
    for name, value in values.items():
        rows[name][row] = value
    return dataclasses.replace(result, **{table: rows})


@pytest.mark.parametrize(
    ("table", "row", "values", "rule"),
    [
        ("batch_entries", 2, {"is_prefill": True}, "6a"),  # prefill after the prompt
        ("batch_entries", 3, {"is_prefill": False}, "6a"),  # decode before it
        ("batch_entries", 3, {"tokens": 2}, "6b"),  # more than is left of the prompt
        ("batch_entries", 5, {"tokens": 0}, "6b"),
        ("batch_entries", 2, {"tokens": 2}, "6c"),  # two decode tokens
        ("batch_entries", 3, {"request": 0}, "6c"),  # twice in a batch
        ("batches", 0, {"prefill_tokens": 5}, "6d"),
        ("requests", 1, {"arrival": 0.5}, "presence"),
        ("requests", 0, {"left": 0.75}, "presence"),
        ("batches", 1, {"num_seqs": 4}, "request slots"),
        ("batches", 1, {"kv_blocks_used": 9}, "KV memory"),
        ("batches", 1, {"kv_blocks_used": 2}, "KV memory"),
        ("batches", 1, {"num_seqs": 1}, "batch rows"),
        ("batches", 2, {"backlog": 4}, "batch rows"),
        ("batches", 2, {"num_in_system": 1}, "batch rows"),
        ("batches", 2, {"decode_tokens": 1}, "batch rows"),
        ("requests", 0, {"computed": 4}, "tokens"),
        ("requests", 1, {"generated": 2}, "tokens"),
        ("requests", 1, {"recomputed": 2}, "tokens"),
        ("requests", 1, {"prefix_hit": 2}, "tokens"),
        ("batches", 2, {"prefix_hit": 2}, "batch rows"),
        ("batches", 1, {"num_running": 1}, "batch rows"),
        ("batches", 1, {"num_waiting": 1}, "batch rows"),
        ("batches", 2, {"decided": 0.5}, "decision time"),
        ("requests", 1, {"status": "active"}, "requests"),
        ("batches", 2, {"duration": 0.25}, "batch time"),
        ("batches", 3, {"start": 1.0}, "overlap"),
        ("requests", 1, {"first_token": 0.5}, "times"),
        ("requests", 1, {"first_scheduled": np.nan}, "times"),
        ("requests", 0, {"finish": 1.5}, "times"),
    ],
)
def test_an_error_in_a_row_is_found(table, row, values, rule):
    violations = testing.check_run(altered(exact_run(), table, row, **values))
    assert rule in rules(violations)
    assert all(str(violation).startswith(f"[{violation.rule}]") for violation in violations)


def test_a_life_that_nothing_explains_is_found():
    result = exact_run()
    contexts = result.entry_contexts.copy()
    contexts[4] = 0  # as if request 0 had lost its memory
    violations = testing.check_run(dataclasses.replace(result, entry_contexts=contexts))
    assert [v.request for v in violations if v.rule == "6b" and v.batch is None] == [0]
    contexts = result.entry_contexts.copy()
    contexts[1] = 1  # as if request 1 had found a token cached
    violations = testing.check_run(dataclasses.replace(result, entry_contexts=contexts))
    assert 1 in [v.request for v in violations if v.rule == "6b" and v.batch is None]


def test_swapped_blocks_take_time():
    engine = dataclasses.replace(ENGINE, swap_block_time=0.5)
    moved = altered(exact_run(), "batches", 3, swapped=2, duration=1.375)
    assert "batch time" not in rules(testing.timing(dataclasses.replace(moved, engine=engine)))


def test_only_some_schedulers_keep_blocks_beyond_their_tokens():
    more = altered(exact_run(), "batches", 1, kv_blocks_used=6)
    assert testing.limits(more) == []
    assert rules(testing.limits(more, baselines.sarathi)) == {"KV memory"}
    assert testing.limits(more, baselines.sarathi_paged(token_budget=512)) == []
    shared = dataclasses.replace(exact_run(), engine=dataclasses.replace(ENGINE, prefix_caching=True))
    assert testing.limits(altered(shared, "batches", 1, kv_blocks_used=2), baselines.sarathi) == []
    assert rules(testing.limits(altered(shared, "batches", 1, kv_blocks_used=4), baselines.sarathi)) == {"KV memory"}


def test_a_batch_is_not_decided_before_the_one_before_it_starts():
    result = run(baselines.sarathi, EXACT, dataclasses.replace(ENGINE, schedule_ahead=1))
    assert testing.check_run(result, baselines.sarathi) == []
    early = altered(result, "batches", 2, decided=result.batches.start[0])
    assert rules(testing.timing(early)) == {"decision time"}


def test_a_missing_batch_is_found():
    result = exact_run()
    rows = {"batch_entries": result.batch_entries[:6], "entry_contexts": result.entry_contexts[:6]}
    short = dataclasses.replace(result, batches=result.batches[:3], **rows)
    assert {"tokens", "times"} <= rules(testing.check_run(short))


def test_a_schedulers_own_limits_count():
    result = run(baselines.sarathi(token_budget=4), EXACT, ls.EngineConfig(LAW))
    assert testing.check_run(result, baselines.sarathi(token_budget=4)) == []
    assert rules(testing.check_run(result, baselines.sarathi(token_budget=3))) >= {"token budget"}
    assert rules(testing.check_run(result, baselines.sarathi(max_num_seqs=1, token_budget=4))) == {"request slots"}
    assert rules(testing.check_run(result, baselines.sarathi(token_budget=5))) == {"work conservation"}


def test_claims_about_phases_and_chunks():
    result = exact_run()
    assert rules(testing.claims(result, dataclasses.replace(baselines.sarathi, mixes_phases=False))) == {"mixes_phases"}
    chunky = testing.claims(result, dataclasses.replace(baselines.sarathi, chunks_prefill=False))
    assert [(v.rule, v.batch, v.request) for v in chunky] == [("chunks_prefill", 0, 1)]


@pytest.mark.parametrize("limits", [{}, {"max_num_seqs": 4}, {"kv_blocks": 40, "block_size": 2}])
def test_holding_back_is_found_under_any_limits(limits):
    def hesitant(view):  # leaves a decoding request out, or a waiting one
        ls.decodes(view, view.running[1:] if len(view.running) > 1 else view.running)
        if len(view.running) == 0:
            ls.chunks(view, view.waiting[:2], ls.ALL)
        return inf

    scheduler = ls.Scheduler("hesitant", hesitant, work_conserving=True, mixes_phases=True, chunks_prefill=True)
    workload = ls.Workload.from_arrays([0.0, 0.0, 0.0], [2, 3, 4], [3, 4, 5])
    result = run(scheduler, workload, ls.EngineConfig(LAW, token_budget=32, **limits), interpreted=True)
    assert testing.check_run(result) == []
    assert {v.batch for v in testing.claims(result, scheduler)} >= {0, 1}
    assert {v.batch for v in testing.maximality(result)} >= {0, 1}


def test_a_chunk_cut_short_is_found_by_maximality():
    def slow(view):
        ls.decodes(view, view.running)
        ls.chunks(view, view.running, 1)
        ls.chunks(view, view.waiting, 1)
        return inf

    scheduler = ls.Scheduler("slow", slow, mixes_phases=True, chunks_prefill=True)
    result = run(scheduler, ls.Workload.from_arrays([0.0], [3], [1]), ENGINE, interpreted=True)
    assert [(v.batch, v.request) for v in testing.maximality(result)] == [(0, 0), (1, 0)]


def test_idling_is_found():
    def sleepy(view):
        if view.clock < 2.0:
            return 2.0
        ls.chunks(view, view.waiting, ls.ALL)
        ls.decodes(view, view.running)
        return inf

    scheduler = ls.Scheduler("sleepy", sleepy, mixes_phases=True, chunks_prefill=True)
    result = run(scheduler, ls.Workload.from_arrays([0.5], [3], [2]), ls.EngineConfig(LAW), interpreted=True)
    (violation,) = testing.work_conservation(result)
    assert (violation.rule, violation.batch) == ("idle", 0)
    asleep = dataclasses.replace(scheduler, compose=lambda view: inf)
    assert rules(testing.work_conservation(run(asleep, EXACT, ls.EngineConfig(LAW), interpreted=True))) == {"idle"}


def test_preempted_requests_are_followed_through_their_attempts():
    # Two requests of 4 + 6 in four blocks of 2: the second one must go when the first needs a third block.
    engine = ls.EngineConfig(LAW, token_budget=16, kv_blocks=5, block_size=2)
    result = run(baselines.sarathi, ls.Workload.from_arrays([0.0, 0.0], [4, 4], [6, 6]), engine)
    assert result.requests.preemptions.tolist() == [0, 1]
    assert testing.check_run(result, baselines.sarathi) == []
    history = testing.RunHistory(result)
    second = history.request == 1
    assert history.starts_attempt[second].sum() == 2
    again = second & history.starts_attempt & (history.batch > 0)
    assert history.prefill_target[again] == 4 + history.generated[again] == history.tokens[again]
    assert rules(testing.check_run(altered(result, "requests", 1, preemptions=3))) >= {"6b"}


def test_what_cannot_be_checked_is_refused():
    batches_only = ls.simulate(baselines.sarathi, EXACT, ENGINE)
    with pytest.raises(ValueError, match='record="entries"'):
        testing.check_run(batches_only)
    with pytest.raises(ValueError, match="max_num_seqs must be unlimited .* use maximality"):
        testing.work_conservation(exact_run())


def test_a_client_may_give_up_as_its_token_comes():
    """The batch of its first token ends at 5 - 1e-15 s by rounding, and the client waits until 5 s."""
    table = ls.RequestTable.from_columns(
        [0.0, 0.875, 2.125, 3.125, 3.125, 3.75, 3.875],
        [1, 7, 9, 1, 8, 1, 5],
        [5, 1, 1, 1, 1, 1, 2],
        timeout=[1.25, 0.125, 0.125, 0.125, 0.125, 0.25, 1.125],
    )
    engine = ls.EngineConfig(ls.Hinge(c=0.3, a=0.07, b0=3), token_budget=9, first_token="separate", schedule_ahead=1)
    result = run(baselines.sarathi, ls.Workload.from_table(table, "tie"), engine, 400.0)
    assert result.requests.generated[6] == 1 and result.requests.left[6] == 5.0
    assert testing.check_run(result, baselines.sarathi) == []
