"""Schedulers with latency targets: exact small cases, each of which the nearest neighbour would serve otherwise."""

from math import inf

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from baselines.slo.slo_first import slo_first

SECOND = ls.Staircase(c=1.0, a=0.0, b0=1)  # every batch takes 1 s
LINEAR = ls.Staircase(c=0.25, a=0.25, b0=4)  # 1 to 4 tokens 0.5 s, up to 8 0.75 s, up to 12 1 s, ...


def served(scheduler, law, budget, arrival, prompt, output, ttft=inf, tpot=inf, engine=None, **columns):
    """The result, and of each batch the tokens by request, in the order in which they were put in."""
    n = len(arrival)
    table = ls.RequestTable.from_columns(
        np.array(arrival, float),
        prompt,
        output,
        ttft_slo=np.broadcast_to(np.array(ttft, float), n).copy(),
        tpot_slo=np.broadcast_to(np.array(tpot, float), n).copy(),
        **columns,
    )
    machine = ls.EngineConfig(law, token_budget=budget, **(engine or {"block_size": 1}))
    workload = ls.Workload.from_table(table, "small case")
    result = ls.simulate(scheduler, workload, machine, record="entries", interpreted=True)
    assert result.drained
    batches = [{} for _ in result.batches]
    for entry in result.batch_entries:
        batches[entry.batch][int(entry.request)] = int(entry.tokens)
    return result, batches


def batches_of(*args, **options):
    return [list(batch.items()) for batch in served(*args, **options)[1]]


# slo_first: prompt 0 fills the first second; meanwhile 1 (2 tokens) and 2 (3 tokens) arrive.
QUEUE = {"law": SECOND, "budget": 4, "arrival": [0, 0.125, 0.25], "prompt": [4, 2, 3], "output": [1, 1, 1]}


@pytest.mark.parametrize(
    ("ttft", "foresight", "second"),
    [
        ([9, 9.0, 9], 1, [(1, 2), (2, 2)]),  # both can be in time: shortest first
        ([9, 0.5, 9], 0, [(2, 3), (1, 1)]),  # 1 was due at 0.625 s
        ([9, 1.0, 9], 0, [(1, 2), (2, 2)]),  # 1 is due at 1.125 s, but a second is needed:
        ([9, 1.0, 9], 1, [(2, 3), (1, 1)]),  # seen to be late at once
        ([9, 1.875, 9], 1, [(1, 2), (2, 2)]),  # due at 2 s exactly
        ([9, 1.875, 9], 1.5, [(2, 3), (1, 1)]),  # less sure of the prediction
        ([9, 0.5, 0.5], 1, [(1, 2), (2, 2)]),  # both late: shortest first again
    ],
)
def test_slo_first_puts_the_late_behind_all_others(ttft, foresight, second):
    assert batches_of(slo_first(foresight=foresight), ttft=ttft, **QUEUE)[1] == second


def test_slo_first_can_go_on_with_what_has_begun_or_keep_the_order():
    # 0 has 4 of its 7 tokens left after the first second, and 1 arrives with 2.
    case = {"law": SECOND, "budget": 4, "arrival": [0, 0.5], "prompt": [8, 2], "output": [1, 1]}
    assert batches_of(slo_first, **case) == [[(0, 4)], [(0, 4)], [(1, 2)]]
    assert batches_of(slo_first(started_first=0), **case) == [[(0, 4)], [(1, 2), (0, 2)], [(0, 2)]]


@pytest.mark.parametrize(("ttft", "spare", "start"), [(9.0, 0.3, 1.0), (0.25, 0.3, 4.0), (0.25, 0.1, 1.0)])
def test_slo_first_keeps_memory_free_of_the_late_while_others_run(ttft, spare, start):
    # At 1 s request 0 takes its fifth of 10 blocks; with the 4 of prompt 1 one would be left. It decodes until 4 s.
    engine = {"kv_blocks": 10, "block_size": 1}
    scheduler = slo_first(spare=spare)
    result, _ = served(scheduler, SECOND, 8, [0, 0.5], [4, 4], [4, 1], ttft=[9, ttft], engine=engine)
    assert result.requests.first_scheduled.tolist() == [0.0, start]


@pytest.mark.parametrize(
    ("share", "least", "tokens"),
    [
        (0.9, 1, 6),  # 0.9 s: 8 tokens, two of them the decodes
        (1.2, 1, 10),  # 1.2 s: 12 tokens
        (0.9, 20, 20),  # but never less than 20 of a prompt
        (0.1, 1, 1),  # too little for any: one token all the same
    ],
)
def test_slo_first_chunks_what_the_tightest_decode_allows(share, least, tokens):
    # 0 and 1 have decoded since 0.5 s; prompt 2 came meanwhile. 1 has no target.
    scheduler = slo_first(tpot_share=share, min_chunk=least)
    _, batches = served(scheduler, LINEAR, 100, [0, 0, 0.1], [1, 1, 80], [2, 2, 1], tpot=[1, inf, inf])
    assert batches[0] == {0: 1, 1: 1}
    assert batches[1] == {0: 1, 1: 1, 2: tokens}
    assert batches[2] == {2: 80 - tokens}  # nobody decodes: the rest at once


def test_earliest_deadline_and_least_slack_differ_where_the_later_deadline_has_the_longer_prompt():
    # Due at 5 s and 5.5 s; alone in a batch they take 0.5 s and 2 s, which leaves 4.5 s and 3.5 s.
    case = {"law": ls.Staircase(c=0.25, a=0.25, b0=4), "budget": 4, "arrival": [0, 0], "prompt": [2, 28]}
    case |= {"output": [1, 1], "ttft": [5.0, 5.5]}
    assert batches_of(baselines.edf, **case)[0] == [(0, 2), (1, 2)]
    assert batches_of(baselines.least_slack, **case)[0] == [(1, 4)]


def test_deadlines_go_before_order_of_arrival_and_no_target_goes_last():
    case = {"law": SECOND, "budget": 2, "arrival": [0, 0, 0], "prompt": [2, 2, 2], "output": [1, 1, 1]}
    case["ttft"] = [inf, 7.0, 6.0]
    for scheduler in (baselines.edf, baselines.least_slack):
        assert batches_of(scheduler, **case) == [[(2, 2)], [(1, 2)], [(0, 2)]]
    assert batches_of(baselines.sarathi, **case) == [[(0, 2)], [(1, 2)], [(2, 2)]]


def test_a_prompt_gets_the_tokens_that_making_room_for_it_has_freed():
    # At 1 s prompts 1, 2 and 3 take a token and a block each, and 0, due last, has 1 of 4 tokens left but no block for
    # it. Request 3 leaves the batch again, and its token is there for the other one that 0 still needs.
    case = {"law": SECOND, "budget": 4, "arrival": [0, 0.5, 0.5, 0.5], "prompt": [6, 1, 1, 1], "output": [1, 1, 1, 1]}
    case |= {"ttft": [9.0, 5.0, 5.0, 5.0], "engine": {"kv_blocks": 4, "block_size": 4}}
    assert batches_of(baselines.edf, **case)[1] == [(1, 1), (2, 1), (0, 2)]


@pytest.mark.parametrize(("paced", "tokens"), [(0, 27), (1, 11)])
def test_qoserve_chunks_what_the_slack_allows(paced, tokens):
    # First token at 0.5 s, due at 1.5 s. The second is due 1 s after the one or the other: 2 s or 1 s are left.
    scheduler = baselines.qoserve(paced=paced, min_chunk=1)
    _, batches = served(scheduler, LINEAR, 100, [0, 0.1], [1, 80], [2, 1], ttft=[1.5, 9], tpot=1.0)
    assert batches[1] == {0: 1, 1: tokens}


def test_qoserve_keeps_the_pace_of_a_decode_that_is_late():
    # First token at 0.5 s though due at 0.25 s; tpot 0.125 s: the second was due at 0.375 s. One token of the prompt
    # then, as `min_chunk` says, since no batch is that short.
    scheduler = baselines.qoserve(min_chunk=1)
    _, batches = served(scheduler, LINEAR, 100, [0, 0.1], [1, 80], [2, 1], ttft=[0.25, 99], tpot=[0.125, inf])
    assert batches[1] == {0: 1, 1: 1}
    # First token at 1 s, the second was due at 0.2 + 0.75 s. A batch of 8 tokens keeps the pace of 0.75 s.
    _, batches = served(scheduler, LINEAR, 100, [0, 0.1], [12, 80], [2, 1], ttft=[0.2, 99], tpot=0.75)
    assert batches[1] == {0: 1, 1: 7}


@pytest.mark.parametrize(("alpha", "first"), [(0.0, 0), (0.05, 0), (0.125, 1)])
def test_qoserve_weighs_deadlines_against_work(alpha, first):
    # 10 + 8 alpha against 10.5 + 2 alpha.
    case = {"arrival": [0, 0], "prompt": [8, 2], "output": [1, 1], "ttft": [10, 10.5], "tpot": 1.0}
    assert batches_of(baselines.qoserve(alpha=alpha), SECOND, 2, **case)[0] == [(first, 2)]


@pytest.mark.parametrize(
    ("priority", "due", "order"),
    [
        ([0, 0], [0.75, 1.5], [0, 1]),  # both in time: earliest deadline first
        ([0, 0], [0.75, 0.875], [0, 1]),  # 1 would miss behind 0: it is put aside
        ([1, 0], [0.75, 0.875], [1, 0]),  # 0 is less important: it is put aside instead
        ([1, 0], [0.75, 1.5], [0, 1]),  # but not without need
        ([0, 1], [0.25, 1.5], [1, 0]),  # 0 would miss in any case
    ],
)
def test_qoserve_relegates_the_least_important_of_those_in_the_way(priority, due, order):
    # Two prompts of 4 tokens, 0.5 s each.
    case = {"arrival": [0, 0], "prompt": [4, 4], "output": [1, 1], "ttft": due, "priority": priority}
    assert batches_of(baselines.qoserve, LINEAR, 4, **case) == [[(i, 4)] for i in order]


def test_qoserve_expects_outputs_of_a_batch_job_as_its_class_has_had():
    # Class 0 has had outputs of 2 and 4: 3 + 1 standard deviation. Left are 2 + 4 tokens of request 2, 3 of 3, which is
    # of a class that nobody knows. With a TPOT target the output does not count.
    case = {"arrival": [0, 0, 9, 9], "prompt": [1, 1, 2, 3], "output": [2, 4, 1, 1], "klass": [0, 0, 0, 1]}
    scheduler = baselines.qoserve(alpha=1.0)
    assert batches_of(scheduler, SECOND, 2, **case)[-3:] == [[(3, 2)], [(3, 1), (2, 1)], [(2, 1)]]
    assert batches_of(scheduler, SECOND, 2, tpot=[inf, inf, 1, 1], **case)[-3:] == [[(2, 2)], [(3, 2)], [(3, 1)]]
    assert batches_of(scheduler(deviations=0), SECOND, 2, **(case | {"prompt": [1, 1, 2, 6]}))[-4] == [(2, 2)]


def test_sola_serves_the_phase_that_is_closer_to_its_target():
    # At 1 s request 0 has just had its first token, and the TTFT of 1 would be 0.5 + 1 of 4 s: the prompt fills the
    # batch. At 2 s it has waited 1 of 0.5 s for its next token, 1 has come to (1.5 + 1)/4: the decode goes first, and
    # one token of the prompt beside it, since no batch keeps the pace of 0.5 s.
    case = {"arrival": [0, 0.5], "prompt": [1, 12], "output": [3, 1], "ttft": 4.0, "tpot": [0.5, 9]}
    batches = batches_of(baselines.sola(min_chunk=1), SECOND, 4, **case)
    assert batches[1:3] == [[(1, 4)], [(0, 1), (1, 1)]]
    # With 9 s for a token it is 1/9 at 2 s, and the prompt goes on alone.
    batches = batches_of(baselines.sola(min_chunk=1), SECOND, 4, **(case | {"tpot": 9.0}))
    assert batches[1:4] == [[(1, 4)], [(1, 4)], [(1, 4)]]


def test_sola_gives_up_what_has_missed():
    # Both prompts were due; then the decode goes first.
    case = {"arrival": [0, 0.5], "prompt": [1, 12], "output": [2, 1], "ttft": [9, 0.25], "tpot": 9.0}
    assert batches_of(baselines.sola, SECOND, 4, **case)[1] == [(0, 1), (1, 3)]


def test_fair_batching_lets_decodes_wait_that_can():
    # At 0.5 s requests 0 and 1 have their first token; the next ones are due 1 s and 100 s later. In 1 s go 12 tokens:
    # the urgent decode and 11 of the prompt; qoserve would serve both decodes and 10.
    case = {"arrival": [0, 0, 0.1], "prompt": [1, 1, 40], "output": [2, 2, 1], "tpot": [1, 100, inf], "ttft": 50.0}
    batches = batches_of(baselines.fair_batching(paced=1, min_chunk=1), LINEAR, 100, **case)
    assert batches[1] == [(0, 1), (2, 11)]
    assert batches_of(baselines.qoserve(paced=1, min_chunk=1), LINEAR, 100, **case)[1] == [(0, 1), (1, 1), (2, 10)]
    # Back-filling takes all that the token budget has room for.
    batches = batches_of(baselines.fair_batching(paced=1, min_chunk=1, back_fill=1), LINEAR, 100, **case)
    assert dict(batches[1]) == {0: 1, 1: 1, 2: 40}


def test_fair_batching_serves_what_would_be_overdue_after_one_more_step():
    # Due in 1 s and in 1.75 s: both are urgent, since a second step of 1 s would end too late.
    case = {"arrival": [0, 0, 0.1], "prompt": [1, 1, 40], "output": [2, 2, 1], "tpot": [1, 1.75, inf], "ttft": 50.0}
    batches = batches_of(baselines.fair_batching(paced=1, min_chunk=1), LINEAR, 100, **case)
    assert batches[1] == [(0, 1), (1, 1), (2, 10)]


@pytest.mark.parametrize(("offset", "start"), [(0, 4), (1, 3), (2, 2), (5, 1)])
def test_slai_defers_a_decode_to_its_last_schedulable_time(offset, start):
    # First token at 1 s, the next due at 4 s, a batch takes 1 s. Until then prompt 1 fills the batches.
    scheduler = baselines.slai(offset=offset)
    result, batches = served(scheduler, SECOND, 4, [0, 0.5], [1, 13], [2, 1], tpot=3.0)
    decode = next(b for b, batch in enumerate(batches) if b > 0 and 0 in batch)
    assert result.batches.start[decode] == start
    assert all(sum(batch.values()) == 4 for batch in batches[1:4])
    assert 0 in served(baselines.sarathi, SECOND, 4, [0, 0.5], [1, 13], [2, 1], tpot=3.0)[1][1]


@pytest.mark.parametrize(("full", "start"), [(0.5, 2), (0.51, 4)])
def test_slai_hurries_where_memory_is_nearly_full(full, start):
    # From 1 s on prompt 1 holds 13 of 28 blocks and request 0 one: half of them when the batch of 2 s is composed.
    scheduler = baselines.slai(offset=0, offset_full=3, full=full)
    engine = {"kv_blocks": 28, "block_size": 1}
    result, batches = served(scheduler, SECOND, 4, [0, 0.5], [1, 13], [2, 1], tpot=3.0, engine=engine)
    decode = next(b for b, batch in enumerate(batches) if b > 0 and 0 in batch)
    assert result.batches.start[decode] == start


def test_slai_starts_the_shortest_prompt_or_that_of_the_paying_user():
    case = {"arrival": [0, 0], "prompt": [4, 2], "output": [1, 1], "priority": [0, 1]}
    assert batches_of(baselines.slai, SECOND, 4, **case)[0] == [(1, 2), (0, 2)]
    assert batches_of(baselines.slai(paying_first=1), SECOND, 4, **case)[0] == [(0, 4)]


def test_slai_sends_back_the_prompt_begun_last_and_else_the_decode_itself():
    # 9 blocks. At 1 s prompt 1 starts beside the decode and gets its 4 blocks; at 2 s the decode finds none.
    engine = {"kv_blocks": 9, "block_size": 1}
    result, _ = served(baselines.slai, SECOND, 4, [0, 0], [4, 4], [4, 1], tpot=1.0, engine=engine)
    assert result.requests.preemptions.tolist() == [0, 1]
    # 8 blocks, both decode from 1 s on; at 2 s none is left. Request 0 comes first and starts over itself, where
    # Sarathi-Serve would push out the one admitted last.
    engine = {"kv_blocks": 8, "block_size": 1}
    case = {"law": SECOND, "budget": 6, "arrival": [0, 0], "prompt": [3, 3], "output": [3, 3], "engine": engine}
    assert served(baselines.slai, **case)[0].requests.preemptions.tolist() == [1, 0]
    assert served(baselines.sarathi_paged, **case)[0].requests.preemptions.tolist() == [0, 1]


def status(*args, **options):
    return served(*args, **options)[0].requests.status.tolist()


@pytest.mark.parametrize("margin", [0.0, 1e-9])
def test_mooncake_rejects_at_the_very_length_of_the_queue(margin):
    # Full batches of 4 tokens take 0.5 s: 2 for prompt 0, one more for prompt 1.
    case = {"arrival": [0, 0], "prompt": [8, 4], "output": [1, 1], "tpot": 9.0}
    result, _ = served(baselines.mooncake_early_rejection, LINEAR, 4, ttft=[1.0, 1.5 - margin], **case)
    assert result.requests.status.tolist() == ["finished", "finished" if margin == 0.0 else "rejected"]
    if margin == 0.0:
        assert result.requests.first_token.tolist() == [1.0, 1.5]  # as predicted
    # Whoever is turned away is not ahead of others.
    assert status(baselines.mooncake_early_rejection, LINEAR, 4, ttft=[1.0 - 1e-9, 0.5], **case) == [
        "rejected",
        "finished",
    ]


def test_mooncake_counts_the_decodes_that_will_be_there():
    # n decodes take (1 + n)/4 s. With 1 s for a token the third request is one too many, though nobody decodes yet.
    law = ls.Staircase(c=0.25, a=0.25, b0=1)
    case = {"arrival": [0, 0, 0], "prompt": [1, 1, 1], "output": [9, 9, 9]}
    scheduler = baselines.mooncake_early_rejection(expected_output=100)
    assert status(scheduler, law, 4, tpot=1.0, **case) == ["finished", "finished", "finished"]
    assert status(scheduler, law, 4, tpot=0.75, **case) == ["finished", "finished", "rejected"]
    assert status(scheduler, law, 4, **case) == ["finished"] * 3
    # One prompt a batch: the first has made 2 tokens when the third is done, and by then is expected to have left.
    alone = baselines.mooncake_early_rejection(expected_output=2, token_budget=1)
    assert status(alone, law, 4, tpot=0.75, **case) == ["finished"] * 3
    assert status(alone(expected_output=3), law, 4, tpot=0.75, **case) == ["finished", "finished", "rejected"]


@pytest.mark.parametrize(
    ("due", "order"),
    [
        ([1.0, 1.5, 2.0], [0, 0, 1, 2]),  # all in time, each to the very end: earliest deadline first
        ([1.0, 1.25, 1.375], [1, 2, 0, 0]),  # 0 is the longest of those that cannot all be: without it two are
    ],
)
def test_slos_serve_keeps_the_most_promises(due, order):
    # Prompts of 8, 4 and 4 tokens, 4 tokens in 0.5 s.
    case = {"arrival": [0, 0, 0], "prompt": [8, 4, 4], "output": [1, 1, 1], "ttft": due}
    result, batches = served(baselines.slos_serve(caution=1), LINEAR, 4, **case)
    assert [list(batch) for batch in batches] == [[i] for i in order]
    assert np.count_nonzero(result.requests.first_token <= due) == (3 if order[0] == 0 else 2)
    for other, expected in ((slo_first, [1, 2, 0, 0]), (baselines.qoserve(alpha=0), [0, 0, 1, 2])):
        assert [list(batch) for batch in served(other, LINEAR, 4, **case)[1]] == [[i] for i in expected]


def test_slos_serve_counts_on_what_steps_hold_beside_the_decodes():
    # Request 0 decodes; steps of 0.75 s hold 8 tokens, 7 of them of prompts. At 0.5 s 8 tokens (7 of 1 and one of 2)
    # would be done after 0.75 + 0.5 s, at 1.75 s.
    case = {"arrival": [0, 0.1, 0.1], "prompt": [1, 7, 1], "output": [9, 1, 1], "tpot": 0.75}
    scheduler = baselines.slos_serve(min_chunk=1, caution=1)
    for due, declined in ((1.75, False), (1.6875, True)):
        _, batches = served(scheduler, LINEAR, 100, ttft=[9, 1.25, due - 0.1], **case)
        assert list(batches[1].items()) == ([(0, 1), (2, 1), (1, 6)] if declined else [(0, 1), (1, 7)])


def test_slo_first_meets_more_targets_than_sarathi_at_any_of_its_budgets():
    engine = ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic")
    workload = ls.preset("azure-chat", horizon=120.0).at_load(0.95, engine)
    seeds = range(100, 116)  # bursts come in some only

    def met(scheduler):
        runs = [ls.simulate(scheduler, workload, engine, seed=k, record="requests") for k in seeds]
        return np.array([run.summary()["slo_attainment"] for run in runs])

    ours = met(slo_first)
    for budget in (512, 2048, 8192):
        gain = ours - met(baselines.sarathi(token_budget=budget))
        assert gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(seeds))
