"""The primitives that schedulers compose batches from, one by one."""

import math

import numpy as np
from hypothesis import given, settings

import llmsched_env as ls
from tests.simulator.cases import run, small_cases

SECOND = ls.Staircase(c=0.5, a=0.5, b0=10**6)  # every batch takes 1 s


def simulate(compose, prompt, output, params=None, **limits):
    """Requests that all arrive at 0; the scheduler is run as plain Python, so that it may assert and remember."""
    scheduler = ls.Scheduler("probe", compose, params=params or {}, mixes_phases=True, chunks_prefill=True)
    workload = ls.Workload.from_arrays([0.0] * len(prompt), prompt, output)
    engine = ls.EngineConfig(SECOND, **limits)
    return ls.simulate(scheduler, workload, engine, horizon=50.0, record="entries", interpreted=True)


def once_then_serve(first):
    """A scheduler that runs `first` in its first call, and serves everyone in the others."""
    done = []

    def compose(view):
        if not done:
            done.append(True)
            first(view)
        else:
            ls.decodes(view, view.running)
            ls.chunks(view, view.running, ls.ALL)
            ls.chunks(view, view.waiting, ls.ALL)
        return math.inf

    return compose


def test_take_gives_what_the_constraints_let_in():
    def first(view):
        assert (ls.tokens_left(view), ls.seats_left(view)) == (10, 3)
        assert ls.take(view, 0, 0) == ls.take(view, 0, -3) == 0
        assert ls.take(view, 0, 2) == 2
        assert ls.take(view, 0, 99) == 2  # the rest of the prompt; its first decode comes in a later batch
        assert ls.take(view, 0, 1) == 0
        assert (ls.tokens_left(view), ls.seats_left(view), ls.prefill_left(view, 0)) == (6, 2, 0)
        assert ls.take(view, 1, 4) == 4
        assert (ls.prefill_left(view, 1), ls.tokens_left(view)) == (3, 2)
        assert ls.take(view, 2, 99) == 2  # the budget is full
        assert ls.take(view, 3, 1) == 0
        assert (ls.tokens_left(view), ls.seats_left(view)) == (0, 0)
        assert not any(ls.is_decoding(view, i) for i in range(4))

    result = simulate(once_then_serve(first), [4, 7, 5, 1], [2, 1, 1, 1], token_budget=10, max_num_seqs=3)
    assert result.batch_entries.tolist()[:3] == [(0, 0, 4, True), (0, 1, 4, True), (0, 2, 2, True)]


def test_take_refuses_a_fourth_request_of_three_seats_but_not_more_of_a_third():
    def first(view):
        assert [ls.take(view, i, 1) for i in (3, 1, 0)] == [1, 1, 1]
        assert ls.take(view, 2, 1) == 0
        assert ls.take(view, 1, 5) == 4
        assert ls.take(view, 2, 1) == 0

    result = simulate(once_then_serve(first), [5] * 4, [1] * 4, max_num_seqs=3)
    assert result.batch_entries.tolist()[:3] == [(0, 3, 1, True), (0, 1, 5, True), (0, 0, 1, True)]


def test_a_request_decodes_one_token_a_batch():
    calls = []

    def compose(view):
        calls.append([ls.is_decoding(view, 0), ls.prefill_left(view, 0), ls.take(view, 0, 2), ls.take(view, 0, 2)])
        return math.inf

    simulate(compose, [3], [3])
    assert calls == [[False, 3, 2, 1], [True, 0, 1, 0], [True, 0, 1, 0]]


def test_lower_token_limit_only_lowers():
    limits = []

    def compose(view):
        for tokens in (8, 20, 3, 5, -1)[: 1 + int(view.clock)]:
            ls.lower_token_limit(view, tokens)
        limits.append(ls.tokens_left(view))
        ls.take(view, 0, 1)
        return 100.0

    simulate(compose, [40], [1], token_budget=12)
    assert limits == [8, 8, 3, 3, 0]


def test_untake_gives_the_place_to_those_behind():
    def first(view):
        for i in (2, 0, 1):
            ls.take(view, i, 9)
        ls.untake(view, 0)
        ls.untake(view, 0)
        assert (ls.tokens_left(view), ls.seats_left(view)) == (4, 1)
        assert ls.take(view, 0, 2) == 2

    result = simulate(once_then_serve(first), [3, 3, 3], [1, 1, 1], token_budget=10, max_num_seqs=3)
    assert result.batch_entries.tolist()[:3] == [(0, 2, 3, True), (0, 1, 3, True), (0, 0, 2, True)]


@settings(max_examples=100, deadline=None)
@given(small_cases())
def test_untake_undoes_take_to_the_last_count(case):
    """In every batch, whatever is taken last, in one go or two, is taken back and then taken for good."""
    checked = []

    def compose(view):
        for k, i in enumerate([*view.running, *view.waiting]):
            before = snapshot(view)
            ls.take(view, i, 1 + k % 2)
            ls.take(view, i, 2)
            ls.untake(view, i)
            assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, snapshot(view), strict=True))
            checked.append(ls.take(view, i, 3))
        return math.inf

    result = run(ls.Scheduler("undecided", compose, mixes_phases=True, chunks_prefill=True), case, interpreted=True)
    assert sum(checked) >= result.batch_entries.tokens.sum()


def snapshot(view):
    used = view.batch.counts.num_seqs
    columns = (*view.req, view.batch.counts_record.view("i8"), view.batch.requests[:used], view.kv_record.view("i8"))
    return [column.copy() for column in columns]


def test_preempt_and_reject_act_on_running_and_on_waiting_requests():
    def second(view):
        assert view.running.tolist() == [0] and view.waiting.tolist() == [1, 2]
        assert not ls.preempt(view, 1) and not ls.reject(view, 0)
        assert ls.take(view, 0, 1) == 1 and ls.take(view, 1, 1) == 1
        assert ls.preempt(view, 0) and not ls.preempt(view, 0)
        assert ls.reject(view, 1) and not ls.reject(view, 1)
        assert [ls.take(view, i, 1) for i in range(3)] == [0, 0, 1]
        assert ls.tokens_left(view) == 15

    def compose(view):
        if view.clock == 0.0:
            ls.take(view, 0, 2)
        elif view.clock == 1.0:
            second(view)
        else:
            assert view.running.tolist() == [2] and view.waiting.tolist() == [0]
            ls.chunks(view, view.running, ls.ALL)
            ls.whole_prompts(view)
        return math.inf

    result = simulate(compose, [2, 2, 2], [2, 2, 1], token_budget=16)
    assert result.requests.status.tolist() == ["finished", "rejected", "finished"]
    assert result.requests.left.tolist() == [3.0, 1.0, 3.0]
    # Request 0 had its prompt and one output token: all three are prefilled, and yield the second one.
    assert result.batch_entries.tolist() == [(0, 0, 2, True), (1, 2, 1, True), (2, 2, 1, True), (2, 0, 3, True)]


def test_chunk_and_chunks_stop_where_no_room_is_left():
    def first(view):
        assert ls.chunk(view, 0, 3) == 3
        assert ls.chunk(view, 0, 3) == 1  # what is left of its prompt
        assert ls.chunk(view, 0, 3) == 0
        ls.chunks(view, view.waiting, 2)
        assert view.req.scheduled.tolist() == [4, 2, 2, 1]

    simulate(once_then_serve(first), [4, 4, 4, 4], [1] * 4, token_budget=9)


def test_whole_prompts_stop_at_the_first_that_does_not_fit():
    def first(view):
        assert ls.prompt_pending(view)
        assert ls.whole_prompts(view) == 2
        assert view.req.scheduled.tolist() == [3, 4, 0, 0]
        assert ls.whole_prompts(view) == 0

    simulate(once_then_serve(first), [3, 4, 4, 1], [1] * 4, token_budget=10)


def test_decodes_follow_the_order_given():
    def compose(view):
        ls.decodes(view, view.running[::-1].copy())
        ls.chunks(view, view.waiting, ls.ALL)
        return math.inf

    result = simulate(compose, [1, 1, 1], [2, 2, 2], token_budget=3)
    assert result.batch_entries.request.tolist() == [0, 1, 2, 2, 1, 0]


def test_a_limit_on_admitted_requests():
    """`max_num_active_seqs` limits who holds a place in the engine, in the batch or not."""

    def compose(view):
        for i in view.waiting:
            ls.take(view, i, 1)
        for i in view.running[:1]:
            ls.take(view, i, 1)
        return math.inf

    result = simulate(compose, [1] * 3, [3, 2, 1], params={"max_num_active_seqs": ls.Param(2, 1, 9)})
    assert result.batches.num_waiting.tolist() == [1, 1, 1, 0]
    assert result.batch_entries.request.tolist() == [0, 1, 0, 0, 2, 1]


def test_memory_for_a_prompt_is_all_of_it_and_not_after_a_preemption():
    def first(view):
        assert [ls.memory_for_prompt(view, i) for i in range(3)] == [True, False, True]
        ls.take(view, 0, 5)
        assert [ls.memory_for_prompt(view, i) for i in range(3)] == [True, False, False]

    def compose(view):
        if view.clock == 0.0:
            first(view)
        elif view.clock == 1.0:
            assert not ls.memory_for_prompt(view, 2)  # 3 of 4 blocks are taken
            ls.preempt(view, 0)
            assert not ls.memory_for_prompt(view, 2)
            ls.take(view, 2, 4)
        else:
            ls.chunks(view, view.running, ls.ALL)
            ls.chunks(view, view.waiting, ls.ALL)
        return math.inf

    result = simulate(compose, [5, 9, 4], [2, 1, 1], kv_blocks=4, block_size=2)
    assert result.requests.status.tolist() == ["finished", "rejected", "finished"]
