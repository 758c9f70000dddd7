"""Token rates and critical rates: published values, and where both kinds of rate differ."""

import pytest

import llmsched_env as ls
from llmsched_env import theory

PAPER = ls.Staircase(c=0.01128, a=0.03547, b0=128)  # arXiv 2504.07347, CodeLlama-34B on one A100


def requests(prompt, output):
    return ls.Workload.poisson(1.0, prompt, output, 10.0)


@pytest.mark.parametrize(("prompt", "output", "expected"), [(100, 100, 16.715), (129, 112, 13.871)])
def test_theorem_2(prompt, output, expected):
    engine = ls.EngineConfig(PAPER, token_budget=512, first_token="separate")
    assert theory.token_rate(engine) == theory.best_token_rate(engine) == pytest.approx(512 / 0.15316)
    assert theory.critical_rate(engine, requests(prompt, output)) == pytest.approx(expected, abs=5e-4)
    reference = theory.capacity(engine, requests(prompt, output))
    assert theory.critical_rate(engine, requests(prompt, output)) == pytest.approx(reference)


def test_work_conservation_wastes_a_last_step_that_a_scheduler_could_leave_out():
    engine = ls.EngineConfig(PAPER, token_budget=400)
    assert theory.token_rate(engine) == pytest.approx(2612, abs=1)  # 400 tokens take four steps
    assert theory.best_token_rate(engine) == pytest.approx(3263, abs=1)  # 384 tokens take three


def test_a_schedulers_own_budget_lowers_the_rate_and_never_raises_it():
    engine = ls.EngineConfig(PAPER, token_budget=512)
    assert theory.token_rate(engine, token_budget=128) == pytest.approx(128 / 0.04675)
    assert theory.token_rate(engine, token_budget=4096) == theory.token_rate(engine)
    lower = theory.critical_rate(engine, requests(100, 101), token_budget=128)
    assert lower == pytest.approx(128 / 0.04675 / 200)
    with pytest.raises(ValueError, match="token_budget must be an integer >= 1 .*got 0"):
        theory.token_rate(engine, token_budget=0)


def test_attention_is_paid_by_request():
    law = ls.Roofline(c=0.5, a_tok=0.01, a_tok_over=0.02, b0=4, a_kv=1e-3, a_attn=1e-4, a_ctx=1.0)
    engine = ls.EngineConfig(law, token_budget=6, host_overhead=(0.1, 0.002))
    # (3, 3): 5 tokens, decode contexts 3 and 4, pairs 1 + 2 + 3, 3 batches.
    seconds = 5 * (0.5 + 0.1 + 0.06 + 0.04) / 6 + 1e-3 * 7 + 1e-4 * 6 + 0.002 * 3
    assert theory.critical_rate(engine, requests(3, 3)) == pytest.approx(1 / seconds)


def test_mean_work_by_hand():
    work = theory.mean_work(requests(3, 3), ls.EngineConfig(PAPER))
    assert work == (3, 2, 3 + 4, 1 + 2 + 3) and work.tokens == 5
    separate = theory.mean_work(requests(3, 3), ls.EngineConfig(PAPER, first_token="separate"))
    assert separate == (3, 3, 3 + 4 + 5, 1 + 2 + 3) and separate.tokens == 6
