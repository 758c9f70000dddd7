"""The linear program over batches: its special cases, and that no single bound is exceeded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmsched_env as ls
from llmsched_env import theory

PAPER = ls.Staircase(c=0.01128, a=0.03547, b0=128)


def requests(prompt, output):
    return ls.Workload.poisson(1.0, prompt, output, 10.0)


@pytest.mark.parametrize("budget", [400, 512])
def test_with_a_token_budget_alone_it_is_the_best_token_rate(budget):
    engine = ls.EngineConfig(PAPER, token_budget=budget, first_token="separate")
    solution = theory.fluid_capacity(engine, requests(129, 112))
    assert solution.rate == pytest.approx(theory.best_token_rate(engine) / 241)
    assert set(solution.compositions[:, :2].sum(axis=1)) == {budget // 128 * 128}
    assert solution.shares.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("prompt", "output"), [(290, 990), (4000, 1000), (5000, 20), (2000, 2)])
def test_with_slots_it_is_theorem_10(prompt, output):
    engine = ls.EngineConfig(PAPER, token_budget=1024, max_num_seqs=100, first_token="separate")
    expected = theory.theorem10(engine).capacity(requests(prompt, output), engine)
    assert theory.fluid_capacity(engine, requests(prompt, output)).rate == pytest.approx(expected)


def test_vertex_c_runs_on_one_kind_of_batch():
    engine = ls.EngineConfig(PAPER, token_budget=1024, max_num_seqs=100, first_token="separate")
    solution = theory.fluid_capacity(engine, requests(290, 990))
    assert solution.compositions.tolist() == [[29, 99, 1]] and solution.shares == pytest.approx([1.0])


def test_short_prompts_need_a_slot_each():
    # (1, 1) with the first token in the prefill batch: 4 slots are 4 requests per batch of 1 s, not 16384.
    engine = ls.EngineConfig(ls.Hinge(c=1.0, a=0.0, b0=1), max_num_seqs=4)
    assert theory.fluid_capacity(engine, requests(1, 1)).rate == pytest.approx(4.0)


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("block_size", [1, 16])
def test_with_memory_and_constant_batch_time_it_is_memory_over_token_steps(chunk, block_size):
    engine = ls.EngineConfig(ls.Hinge(c=0.5, a=0.0, b0=1), kv_blocks=400, block_size=block_size)
    workload = ls.Workload.from_arrays([0, 1, 2], [5, 10, 3], [4, 2, 9])
    solution = theory.fluid_capacity(engine, workload, prefill_chunk=chunk)
    assert solution.rate == pytest.approx(theory.kv_capacity(engine, workload, 0.5, prefill_chunk=chunk))
    assert solution.kv_tokens == pytest.approx(400 * block_size)


def test_in_slots_it_is_the_volume_condition():
    # Dong and Cao: no policy is stable where sum lambda_k w_k exceeds M.
    engine = ls.EngineConfig(ls.Hinge(c=1.0, a=0.0, b0=1), kv_blocks=16_492, block_size=1)
    rate = theory.fluid_capacity(engine, ls.Workload.from_arrays([0, 1, 2], [10] * 3, [20, 40, 60]), newest=True).rate
    assert theory.memory_demand(np.full(3, rate / 3), [10] * 3, [20, 40, 60]) == pytest.approx(16_492)


LAWS = st.one_of(
    st.builds(ls.Staircase, c=st.floats(0.001, 0.1), a=st.floats(0.001, 0.1), b0=st.integers(1, 12)),
    st.builds(ls.Hinge, c=st.floats(0.001, 0.1), a=st.floats(0.0, 0.1), b0=st.integers(1, 12)),
    st.builds(
        ls.Roofline,
        c=st.floats(0.001, 0.1),
        a_tok=st.floats(0.0, 0.01),
        a_tok_over=st.floats(0.0, 0.01),
        b0=st.integers(1, 12),
        a_kv=st.sampled_from([0.0, 1e-4]),
        a_attn=st.sampled_from([0.0, 1e-4]),
        a_ctx=st.just(0.0),
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    law=LAWS,
    budget=st.integers(1, 60),
    slots=st.none() | st.integers(1, 20),
    blocks=st.none() | st.integers(40, 200),
    prompt=st.integers(1, 30),
    output=st.integers(1, 30),
    host=st.sampled_from([0.0, 0.01]),
    chunk=st.none() | st.integers(1, 10),
)
def test_it_exceeds_no_bound_that_it_contains(law, budget, slots, blocks, prompt, output, host, chunk):
    engine = ls.EngineConfig(
        law, token_budget=budget, max_num_seqs=slots, kv_blocks=blocks, block_size=1, host_overhead=(host, host / 10)
    )
    workload = requests(prompt, output)
    rate = theory.fluid_capacity(engine, workload, prefill_chunk=chunk).rate * (1 - 1e-9)
    work = theory.mean_work(workload, engine)
    assert rate <= theory.best_token_rate(engine) / work.tokens
    assert rate <= theory.stability_region(engine, workload).capacity(workload, engine)
    if blocks is not None:
        shortest = law.seconds(1) + host
        assert rate <= theory.kv_capacity(engine, workload, shortest, prefill_chunk=chunk)
    if chunk is None and slots is None:  # `capacity` takes means over batches: with a few slots none is like the mean
        assert rate >= 0.8 * theory.capacity(engine, workload)
