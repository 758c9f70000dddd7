"""Schedulers that look ahead in memory, on cases worked out by hand and against a count by brute force."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines
import llmsched_env as ls
from baselines import alpha_protection, mc_benchmark, mc_sf, sorted_f, svf
from llmsched_env import testing
from llmsched_env.compiled import interpreted
from llmsched_env.simulator.state import WAITING
from tests.simulator.cases import Case, run, small_cases

SECOND = ls.Staircase(c=1.0, a=0.0, b0=1)


def machine(memory, **options):
    return ls.EngineConfig(SECOND, kv_blocks=memory, **{"block_size": 1, "first_token": "separate", **options})


def simulate(scheduler, memory, prompt, output, arrival=None, predicted=None, **options):
    arrival = [0.0] * len(prompt) if arrival is None else arrival
    predicted = output if predicted is None else predicted
    workload = ls.Workload.from_arrays(arrival, prompt, output, predicted_output=np.array(predicted, float))
    return ls.simulate(scheduler, workload, machine(memory, **options), record="entries", interpreted=True)


def starts(*arguments, **options):
    return simulate(*arguments, **options).requests.first_scheduled.tolist()


def test_what_leaves_soon_makes_room_for_what_grows_late():
    # Largest uses 4 and 8 tokens, 12 in all; but when the first holds 4, in the second batch, the other one holds 3.
    assert starts(mc_sf, 10, [3, 2], [1, 6]) == [0, 0]
    # Of 6 tokens 4 + 3 are too many, 4 + 2 a batch later are not.
    assert starts(mc_sf, 6, [3, 2], [1, 4]) == [0, 1]


def test_nobody_overtakes_the_first_misfit():
    # The first one holds 2 + 6 of 10 tokens in the end. Then 8 + 2 never fit beside it, 1 + 3 would.
    assert starts(mc_sf, 10, [2, 8, 1], [6, 2, 3], arrival=[0, 1, 1]) == [0, 7, 10]
    assert starts(svf, 10, [2, 8, 1], [6, 2, 3], arrival=[0, 1, 1]) == [0, 7, 1]


def test_mc_sf_goes_by_output_and_its_benchmark_by_arrival():
    lengths = [4, 4, 4], [5, 3, 1]
    assert starts(mc_sf, 9, *lengths) == [5, 1, 0]
    assert starts(mc_benchmark, 9, *lengths) == [0, 6, 10]


def test_volumes_weigh_prompts():
    # Volumes 43 and 20, outputs 2 and 5; of 23 tokens they use 22 and 6 at most. The second may join the first when
    # that one has its last token to come: 22 + 1. The first may not join the second before it has left.
    lengths = [20, 1], [2, 5]
    assert starts(mc_sf, 23, *lengths) == [0, 2]
    assert starts(svf, 23, *lengths) == [6, 0]


def test_sorted_f_weighs_the_size_of_a_batch_against_its_outputs():
    # F = 1 for the long prompt, 8/16 for the four others, which fit together: 4 (1 + 2) = 12.
    lengths = [10, 1, 1, 1, 1], [1, 2, 2, 2, 2]
    assert starts(sorted_f, 12, *lengths)[1:] == [0, 0, 0, 0]
    assert starts(mc_sf, 12, *lengths)[0] == 0
    # F = 1 and 3, volumes 11 and 9: here it goes by output, and smallest volume first does not.
    assert starts(sorted_f, 12, [10, 1], [1, 3])[0] == 0
    assert starts(svf, 12, [10, 1], [1, 3])[0] == 4


def test_a_prompt_cut_by_the_budget_counts_with_its_largest_use():
    # Batch 1 has room for 4 of 6 prompt tokens: the 8 tokens that it may come to hold count at once, 8 + 6 > 13. If it
    # ran token by token from now on, the two would have 7 + 5 = 12 when the first one leaves.
    assert starts(mc_sf, 13, [3, 6], [3, 2], arrival=[0, 1], token_budget=5) == [0, 4]
    assert starts(mc_sf, 14, [3, 6], [3, 2], arrival=[0, 1], token_budget=5) == [0, 1]


def test_a_share_of_memory_is_kept_from_new_requests():
    lengths = [3, 3, 3], [1, 1, 1]
    assert starts(alpha_protection(alpha=0.2), 10, *lengths) == [0, 0, 2]
    assert starts(alpha_protection(alpha=0.0), 10, *lengths) == [0, 0, 0]


def test_an_overflow_clears_all_but_the_oldest():
    lengths = [3, 3, 3], [4, 4, 4]
    assert simulate(alpha_protection(alpha=0.0), 10, *lengths).batches.preemptions[:2].tolist() == [0, 2]
    assert simulate(baselines.sarathi, 10, *lengths).batches.preemptions[:3].tolist() == [0, 1, 0]


def test_an_overflow_drops_each_with_its_probability():
    # Eleven requests hold 11 of 12 tokens; in the second batch 10 of them have to find no more than 1.
    dropped = []
    for seed in range(200):
        workload = ls.Workload.from_arrays([0.0] * 11, [1] * 11, [9] * 11)
        scheduler = alpha_protection(alpha=0.0, beta=0.3)
        result = ls.simulate(scheduler, workload, machine(12), seed=seed, horizon=1.5, interpreted=True)
        dropped.append(result.requests.preemptions)
    assert not np.any([d[0] for d in dropped])
    # If d go, 1 + d blocks are free for 11 - d tokens: at least 5 of the 10 must go, and seldom all do.
    counts = np.sum(dropped, axis=1)
    assert counts.min() == 5 and 5.2 < counts.mean() < 7.0


@pytest.mark.parametrize("scheduler", [mc_sf, mc_benchmark, svf, sorted_f], ids=lambda scheduler: scheduler.name)
@settings(max_examples=60, deadline=None)
@given(case=small_cases())
def test_memory_never_runs_out_if_predictions_are_true(scheduler, case):
    table = case.workload.sample(0)
    exact = dataclasses.replace(table, predicted_output=table.output_tokens.astype(float))
    engine = dataclasses.replace(case.engine, kv_blocks=case.engine.kv_blocks or 9)
    case = Case(ls.Workload.from_table(exact, "exact"), engine, case.budget)
    result = run(scheduler, case, interpreted=True)
    assert result.drained
    assert result.batches.preemptions.sum() == 0
    assert testing.check_run(result, scheduler(token_budget=case.budget)) == []


def lasts(active, blocks, size):
    """Whether requests that hold (held + t) tokens in batches t = 1..left fit into memory in every batch."""
    horizon = max(left for _, left in active)
    return all(
        sum(-(-(held + t) // size) for held, left in active if left >= t) <= blocks for t in range(1, horizon + 1)
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.integers(1, 5), blocks=st.integers(6, 24))
def test_the_look_ahead_agrees_with_counting_every_batch(data, size, blocks):
    """Whole prompts, true lengths: those admitted are the longest prefix, by output, for which memory lasts."""
    n = data.draw(st.integers(2, 14))
    lengths = [data.draw(st.lists(st.integers(1, 2 * size + 6), min_size=n, max_size=n)) for _ in range(2)]
    arrival = np.sort(data.draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))).astype(float)
    inner, seen = interpreted(mc_sf.compose), []

    def compose(view):
        req = view.req
        active = [(int(req.computed[i]), int(req.known_output[i] - req.generated[i])) for i in view.running]
        order = sorted(view.waiting.tolist(), key=lambda i: (req.known_output[i], i))
        expected = []
        for i in order:
            plan = (int(req.prompt_tokens[i]) - 1, 1 + int(req.known_output[i]))
            if active and not lasts([*active, plan], blocks, size):
                break
            active.append(plan)
            expected.append(i)
        wake = inner(view)
        batch = view.batch.requests[: view.batch.counts.num_seqs]
        seen.append(([i for i in batch.tolist() if req.phase[i] == WAITING], expected))
        return wake

    scheduler = dataclasses.replace(mc_sf, compose=compose)
    simulate(scheduler, blocks, *lengths, arrival=arrival, block_size=size)
    assert all(admitted == expected for admitted, expected in seen)


def test_predictions_that_are_too_small_cost_preemptions():
    lengths = [3, 3, 3], [4, 4, 4]
    assert simulate(mc_sf, 10, *lengths, predicted=[1, 1, 1]).requests.preemptions.sum() > 0
    assert simulate(mc_sf(overestimate=4), 10, *lengths, predicted=[1, 1, 1]).requests.preemptions.sum() == 0


def test_without_a_prediction_the_longest_output_counts():
    nothing = [np.nan, np.nan]
    assert starts(mc_sf(max_output_tokens=2), 12, [3, 3], [2, 2], predicted=nothing) == [0, 0]
    assert starts(mc_sf(max_output_tokens=9), 12, [3, 3], [2, 2], predicted=nothing) == [0, 3]


@pytest.mark.parametrize("scheduler", [mc_sf, mc_benchmark, alpha_protection, svf, sorted_f], ids=lambda s: s.name)
@settings(max_examples=40, deadline=None)
@given(case=small_cases(limited=False))
def test_without_a_limit_on_memory_no_batch_has_room_that_someone_could_use(scheduler, case):
    result = run(scheduler, case, interpreted=True)
    assert testing.work_conservation(result, scheduler(token_budget=case.budget)) == []
