"""The index policy by hand, and the network that sets its numbers."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

import baselines
import llmsched_env as ls
from llmsched_env.policies.index import index
from llmsched_env.policies.index_params import INDEX_PARAMS
from llmsched_env.policies.learned_index import OUTPUTS, PERCEPTRON, SCALING, learned_index
from tests.simulator.cases import LONG, bound, memory_cases
from tests.simulator.test_kv_invariants import check_run

ENGINE = ls.EngineConfig(ls.Staircase(c=0.0, a=0.25, b0=4), token_budget=64)


def order_of_prefill(scheduler, prompts, ttft, arrival=None):
    """Requests in the order in which their prompts were finished; each batch has room for four tokens."""
    n = len(prompts)
    workload = ls.Workload.from_arrays(arrival or [0.0] * n, prompts, [1] * n, slo=(ttft, [100.0] * n))
    rows = ls.simulate(scheduler(token_budget=4), workload, ENGINE, record="requests", interpreted=True).requests
    return np.argsort(rows.first_token, kind="stable").tolist()


def test_the_shortest_goes_first_and_who_is_late_last():
    # Four tokens take 0.25 s: request 0 needs 0.5 s and has 0.4. The others go by length.
    assert order_of_prefill(index(caution=1), [8, 12, 4], [0.4, 9.0, 9.0]) == [2, 1, 0]


def test_slack_can_outweigh_length():
    assert order_of_prefill(index(by_length=0, by_slack=1), [4, 8], [9.0, 2.0]) == [1, 0]
    assert order_of_prefill(index(by_length=1, by_slack=0), [4, 8], [9.0, 2.0]) == [0, 1]


def test_who_would_make_others_late_goes_last():
    # 0.5 s for the first, then 0.25 s each for two that have 0.6 s: without the long one both are in time.
    prompts, ttft = [8, 4, 4], [0.55, 0.6, 0.6]
    assert order_of_prefill(index(by_length=0, by_slack=1, caution=1), prompts, ttft)[0] == 0
    assert order_of_prefill(index(by_length=0, by_slack=1, caution=1, outside=10), prompts, ttft)[2] == 0


def test_the_step_is_as_long_as_the_tpot_target_allows():
    # One request decodes with a target of 0.6 s a token; 0.9 of it allows two blocks of four tokens, with that one.
    workload = ls.Workload.from_arrays([0.0, 0.3], [4, 30], [9, 1], slo=([9.0, 9.0], [0.6, 0.6]))
    result = ls.simulate(index(least_chunk=1), workload, ENGINE, interpreted=True)
    assert result.batches.prefill_tokens.tolist()[:4] == [4, 0, 7, 7]


@pytest.mark.parametrize(("extra", "tokens"), [(0.0, 3), (1.0, 7), (1e6, 30)])
def test_prefill_beside_decodes_is_held_to_a_multiple_of_the_step_without(extra, tokens):
    # One request decodes, in steps of 0.25 s; four tokens more take as long again. No target limits the step.
    workload = ls.Workload.from_arrays([0.0, 0.3], [4, 30], [9, 1])
    result = ls.simulate(index(least_chunk=1, extra=extra), workload, ENGINE, interpreted=True)
    assert result.batches.prefill_tokens.tolist()[:3] == [4, 0, tokens]


@pytest.mark.parametrize(("by_load", "tokens"), [(1.0, 12), (0.0, 8), (-1.0, 4)])
def test_prefill_beside_decodes_may_be_measured_by_the_empty_step(by_load, tokens):
    # Four requests decode. With a token more their step takes 0.5 s, an empty one 0.25 s: as long again is 12 tokens,
    # an empty step 8, and an empty step by how many times the step is longer, 0.125 s, 4: whole blocks of four.
    workload = ls.Workload.from_arrays([0.0] * 4 + [0.3], [1] * 4 + [40], [9] * 4 + [1])
    scheduler = index(least_chunk=1, extra=1.0, extra_by_load=by_load)
    result = ls.simulate(scheduler, workload, ENGINE, interpreted=True)
    assert result.batches.prefill_tokens.tolist()[:3] == [4, 0, tokens]


@pytest.mark.parametrize("blocking", [0.0, 5.0])
def test_a_prompt_that_would_make_others_late_is_not_begun_while_they_come(blocking):
    # One request decodes all the time. A short prompt comes every second and has 0.6 s; the long one, which needs at
    # least 2.5 s of the engine, has all the time there is.
    arrival = [0.0, 1.1, 2.1, 3.1, 3.3, 4.1, 5.1, 6.1, 7.1, 8.1]
    long = arrival.index(3.3)
    prompts, targets, outputs = [3] * len(arrival), [0.6] * len(arrival), [1] * len(arrival)
    prompts[0], targets[0], outputs[0] = 4, 9.0, 60
    prompts[long], targets[long] = 30, 1e3
    workload = ls.Workload.from_arrays(arrival, prompts, outputs, slo=(targets, [0.5] * len(arrival)))
    scheduler = index(token_budget=4, late_share=0, least_chunk=4, blocking=blocking)
    rows = ls.simulate(scheduler, workload, ENGINE, interpreted=True).requests
    first = rows.first_token - rows.arrival
    assert (first <= rows.ttft_slo).all() == (blocking > 0)
    assert (rows.first_token[long] > 9.0) == (blocking > 0)


@pytest.mark.parametrize(("join", "tokens"), [(0.0, [4, 4, 4]), (1.0, [8, 4]), (1e6, [12])])
def test_prompts_join_a_batch_up_to_a_multiple_of_its_shortest_step(join, tokens):
    workload = ls.Workload.from_arrays([0.0] * 3, [4] * 3, [1] * 3)
    result = ls.simulate(index(join=join), workload, ENGINE, interpreted=True)
    assert result.batches.prefill_tokens.tolist() == tokens


@pytest.mark.parametrize(("due_share", "tokens"), [(1e6, [12]), (0.6, [8, 4]), (0.4, [4, 8])])
def test_no_prompt_joins_a_batch_that_would_end_when_one_in_it_is_late(due_share, tokens):
    # The first is due after 0.95 s, and each of the three takes 0.25 s.
    workload = ls.Workload.from_arrays([0.0] * 3, [4] * 3, [1] * 3, slo=([0.95, 9.0, 9.0], [9.0] * 3))
    scheduler = index(by_length=0, by_slack=1, least_chunk=1, due_share=due_share)
    result = ls.simulate(scheduler, workload, ENGINE, interpreted=True)
    assert result.batches.prefill_tokens.tolist() == tokens


@pytest.mark.parametrize(("victims", "most"), [(1e6, 16), (0.5, 8)])
def test_a_step_is_not_so_long_that_many_who_come_meanwhile_are_late(victims, most):
    # A short prompt comes every second and can wait for 0.1 s; from 5 s on there are also four without haste, a second
    # of the engine together. A step of half a second makes 0.4 of a short one late.
    arrival = [0.1, 1.1, 2.1, 3.1, 4.1, 5.0, 5.0, 5.0, 5.0, 5.2, 6.2]
    hurried = [t not in (5.0,) for t in arrival]
    targets = [0.62 if h else 1e3 for h in hurried]
    workload = ls.Workload.from_arrays(arrival, [4] * len(arrival), [1] * len(arrival), slo=(targets, [9.0] * 11))
    result = ls.simulate(index(victims=victims, least_chunk=1), workload, ENGINE, interpreted=True)
    assert result.batches.prefill_tokens.max() == most


def test_a_margin_leaves_less_room_for_those_that_can_be_on_time():
    # 0.25 s and 0.5 s of prefill, 0.8 s until both are due: with a fifth on top they do not fit, and the longer is out.
    longest_first = index(by_length=-1, outside=10, caution=1)
    assert order_of_prefill(longest_first(margin=1.0), [4, 8], [0.8, 0.8]) == [1, 0]
    assert order_of_prefill(longest_first(margin=1.2), [4, 8], [0.8, 0.8]) == [0, 1]


def test_no_prompt_overtakes_one_that_has_begun_unless_it_may():
    # The long prompt begins alone; three short ones arrive while it is computed, four tokens a batch.
    workload = ls.Workload.from_arrays([0.0, 0.1, 0.1, 0.1], [12, 4, 4, 4], [1] * 4)
    first = []
    for begun in (100, 0):
        rows = ls.simulate(index(begun=begun)(token_budget=4), workload, ENGINE, interpreted=True).requests
        first.append(int(np.argmin(rows.first_token)))
    assert first[0] == 0 and first[1] != 0


def test_the_network_at_rest_is_the_index_policy_at_its_start():
    numbers = SCALING.numbers(np.zeros(len(OUTPUTS)))
    still = index(**dict(zip(INDEX_PARAMS, numbers.tolist(), strict=True)))
    engine = ls.EngineConfig.for_gpu("llama-3.1-8b_rtx4090-24gb_tp1_lss")
    workload = ls.preset("azure-chat", horizon=60.0).at_load(1.0, engine)
    one, other = (ls.simulate(s, workload, engine, seed=1) for s in (still, learned_index))
    assert one.requests.tobytes() == other.requests.tobytes()


def test_a_bias_of_the_network_moves_its_number():
    weights = np.zeros(PERCEPTRON.size)
    for name, number in (("by_length", 2.0), ("by_urgency", 0.0)):
        PERCEPTRON.output_layer(weights)[PERCEPTRON.output_place(name), -1] = OUTPUTS[name].inverse(number)
    moved = dataclasses.replace(learned_index, weights=tuple(weights.tolist()))
    assert order_of_prefill(learned_index, [4, 8], [9.0, 2.0]) == [1, 0]  # the second is more urgent
    assert order_of_prefill(moved, [4, 8], [9.0, 2.0]) == [0, 1]  # the first is shorter


@pytest.mark.parametrize("scheduler", [index, learned_index], ids=lambda s: s.name)
def test_compiled_and_interpreted_rows_are_the_same(scheduler):
    rng = np.random.default_rng(0)
    if scheduler.weights:
        scheduler = dataclasses.replace(scheduler, weights=tuple(rng.normal(0, 0.3, PERCEPTRON.size).tolist()))
    engine = ls.EngineConfig.for_gpu("llama-3.1-8b_rtx4090-24gb_tp1_lss")
    workload = ls.preset("sharegpt-chat", horizon=15.0).at_load(1.2, engine)
    one, other = (ls.simulate(scheduler, workload, engine, seed=0, interpreted=i) for i in (False, True))
    assert one.requests.tobytes() == other.requests.tobytes()
    assert len(one.batches) > 100


def test_a_scheduler_with_weights_is_another_scheduler():
    assert learned_index != dataclasses.replace(learned_index, weights=(1.0,) * PERCEPTRON.size)
    assert baselines.sarathi.numbers().tolist() == baselines.sarathi.param_values().tolist()


def restless():
    """The learned policy with random weights, large enough to reach every corner of its numbers."""
    rng = np.random.default_rng(1)
    return dataclasses.replace(learned_index, weights=tuple(rng.normal(0, 1, PERCEPTRON.size).tolist()))


@pytest.mark.parametrize("scheduler", [index(outside=5), restless()], ids=lambda s: s.name)
@settings(max_examples=40, deadline=None)
@given(case=memory_cases())
def test_every_token_and_block_is_accounted_for(scheduler, case):
    check_run(bound(scheduler, case), case, LONG)
