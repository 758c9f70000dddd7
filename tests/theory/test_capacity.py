"""The reference capacity: published values, cases worked out by hand, and its dependence on limits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsched_env.machine.batch_time import Hinge, Roofline, Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.profiles import gpu_profile
from llmsched_env.theory import capacity, load
from llmsched_env.workloads import Workload, dist, preset

PAPER = Staircase(c=0.01128, a=0.03547, b0=128)  # arXiv 2504.07347, CodeLlama-34B on one A100


def requests(prompt, output):
    return Workload.poisson(1.0, prompt, output, 10.0)


@pytest.mark.parametrize(("prompt", "output", "expected"), [(129, 112, 13.871), (100, 100, 16.715)])
def test_theorem_2(prompt, output, expected):
    engine = EngineConfig(PAPER, token_budget=512, first_token="separate")
    assert capacity(engine, requests(prompt, output)) == pytest.approx(expected, abs=5e-4)
    assert capacity(engine, requests(prompt, output)) == pytest.approx(
        512 / (0.01128 + 4 * 0.03547) / (prompt + output)
    )


def test_first_token_with_the_prompt_saves_one_token():
    engine = EngineConfig(PAPER, token_budget=512)
    assert capacity(engine, requests(129, 112)) == pytest.approx(13.870993 * 241 / 240, rel=1e-6)


def test_a_single_server():
    # Budget 1 and one-token requests in constant time are M/D/1 with 2 services per second.
    engine = EngineConfig(Staircase(c=0.25, a=0.25, b0=1), token_budget=1)
    assert capacity(engine, requests(1, 1)) == pytest.approx(2.0)
    assert load(requests(1, 1), engine) == pytest.approx(0.5)


def test_a_budget_that_is_no_multiple_of_the_stair_is_not_filled():
    # b/t_b at 400 tokens (4 stairs) is below that at 384 (3 stairs).
    engine = EngineConfig(PAPER, token_budget=400, first_token="separate")
    assert capacity(engine, requests(100, 100)) * 200 == pytest.approx(384 / (0.01128 + 3 * 0.03547))


def test_slots_bound_a_batch():
    # Section 6.2 of the paper, vertex C: 100 slots, requests of (290, 990) every 467.5 ms are exactly critical.
    engine = EngineConfig(PAPER, token_budget=1024, max_num_seqs=100, first_token="separate")
    assert capacity(engine, requests(290, 990)) == pytest.approx(1 / 0.4675)


def test_slots_bound_short_requests_too():
    # (1, 1) with its first token in the prefill batch: 4 slots are 4 requests per batch of 1 s.
    engine = EngineConfig(Hinge(c=1.0, a=0.0, b0=1), max_num_seqs=4)
    assert capacity(engine, requests(1, 1)) == pytest.approx(4.0)


def test_a_single_slot_serves_requests_one_by_one():
    # One prefill batch and two decode batches of 1 s each.
    engine = EngineConfig(Hinge(c=1.0, a=0.0, b0=1), max_num_seqs=1)
    assert capacity(engine, requests(5, 3)) == pytest.approx(1 / 3)


def test_kv_memory_bounds_the_batch():
    # (2, 3) holds 2, 3 and 4 tokens of KV in its three batches: 9 token-batches. With 18 tokens of KV two requests are
    # begun per batch of 1 s.
    engine = EngineConfig(Hinge(c=1.0, a=0.0, b0=1), kv_blocks=18, block_size=1)
    assert capacity(engine, requests(2, 3)) == pytest.approx(2.0)
    # In blocks of 4 each of the three batches holds 1.5 tokens more on average.
    coarse = EngineConfig(Hinge(c=1.0, a=0.0, b0=1), kv_blocks=27, block_size=4)
    assert capacity(coarse, requests(2, 3)) == pytest.approx(27 * 4 / 13.5)


@pytest.mark.parametrize(
    ("first_token", "decodes", "context"), [("with_prefill", 2, 3 + 4), ("separate", 3, 3 + 4 + 5)]
)
def test_all_terms_of_the_law(first_token, decodes, context):
    law = Roofline(c=0.5, a_tok=0.01, a_tok_over=0.02, b0=4, a_kv=1e-3, a_attn=1e-4, a_ctx=1.0)
    engine = EngineConfig(law, token_budget=6, first_token=first_token, host_overhead=(0.1, 0.002))
    work = 3 + decodes
    batch = 0.5 + 0.1 + 0.01 * 6 + 0.02 * 2  # largest batch is the cheapest per token
    seconds = work / 6 * batch + 1e-3 * context + 1e-4 * (1 + 2 + 3) + 0.002 * (decodes + 1)
    assert capacity(engine, requests(3, 3)) == pytest.approx(1 / seconds)


def test_mixed_lengths_enter_by_their_means():
    engine = EngineConfig(Roofline(0.01, 1e-4, 0.0, 1, 1e-5, 1e-6, 0.0), token_budget=100)
    mixed = Workload.from_arrays([0, 1], [10, 30], [1, 5])
    alone = [capacity(engine, requests(prompt, output)) for prompt, output in ((10, 1), (30, 5))]
    assert 1 / capacity(engine, mixed) == pytest.approx((1 / alone[0] + 1 / alone[1]) / 2)


def test_capacity_is_no_matter_of_rate():
    engine = EngineConfig(PAPER, token_budget=512)
    workload = Workload.poisson(3.0, dist.Geometric(50), dist.Geometric(20), 60.0)
    assert capacity(engine, workload) == capacity(engine, workload.scaled(rate=300.0))


def test_azure_chat_on_an_h100():
    profile = gpu_profile("llama-3.1-8b_h100-80gb_tp1_aic")
    engine = EngineConfig(profile.batch_time, kv_blocks=profile.kv_blocks())
    assert 20 < capacity(engine, preset("azure-chat")) < 25
    assert load(preset("azure-chat"), engine) == pytest.approx(0.25, abs=0.05)


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(1, 600),
    slots=st.integers(1, 64),
    blocks=st.integers(1, 4000),
    prompt=st.integers(1, 500),
    output=st.integers(1, 200),
    more=st.integers(0, 500),
)
def test_wider_limits_never_lower_capacity(budget, slots, blocks, prompt, output, more):
    workload = requests(prompt, output)

    def with_limits(budget, slots, blocks):
        return capacity(EngineConfig(PAPER, token_budget=budget, max_num_seqs=slots, kv_blocks=blocks), workload)

    base = with_limits(budget, slots, blocks)
    assert base > 0
    for wider in ((budget + more, slots, blocks), (budget, slots + more, blocks), (budget, slots, blocks + more)):
        assert with_limits(*wider) >= base * (1 - 1e-12)
    best = max(b / (0.01128 + 0.03547 * -(-b // 128)) for b in range(1, budget + 1))
    assert base <= best / (prompt + output - 1) * (1 + 1e-12)
