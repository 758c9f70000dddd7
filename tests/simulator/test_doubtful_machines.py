"""Step times that scatter, laws that schedulers believe and engines do not have, and the longest request."""

import math
from dataclasses import replace

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from baselines import routers
from llmsched_env import theory
from llmsched_env.testing import check_run

LAW = ls.Roofline(c=0.01, a_tok=1e-4, a_tok_over=0.0, b0=1, a_kv=0.0, a_attn=0.0, a_ctx=0.0)
ENGINE = ls.EngineConfig(LAW, token_budget=512, kv_blocks=1000, host_overhead=(0.002, 1e-5))
WORKLOAD = ls.Workload.poisson(8.0, ls.dist.Uniform(20, 200), ls.dist.Uniform(5, 60), 60.0)


def factors(rows: np.recarray) -> np.ndarray:
    """Time of each batch over what the law says."""
    exact = LAW.seconds(rows.prefill_tokens + rows.decode_tokens) + 0.002 + 1e-5 * rows.num_seqs
    return rows.duration / exact


@pytest.mark.parametrize("noise", [0.05, 0.3, 0.8])
def test_noise_is_lognormal_of_mean_one(noise):
    result = ls.simulate(baselines.sarathi, WORKLOAD, replace(ENGINE, step_noise=noise), seed=3, record="entries")
    assert check_run(result) == []
    scatter = np.log(factors(result.batches))
    n = len(scatter)
    assert n > 1000
    assert np.std(scatter) == pytest.approx(noise, rel=4 / math.sqrt(2 * n))
    assert abs(np.mean(scatter) + noise**2 / 2) < 4 * noise / math.sqrt(n)
    skewness = np.mean((scatter - scatter.mean()) ** 3) / np.std(scatter) ** 3
    assert abs(skewness) < 4 * math.sqrt(6 / n)
    assert abs(np.corrcoef(scatter[1:], scatter[:-1])[0, 1]) < 4 / math.sqrt(n)  # steps are independent


def test_noise_is_the_same_under_every_scheduler():
    noisy = replace(ENGINE, step_noise=0.3)
    runs = [
        factors(ls.simulate(baselines.get(name), WORKLOAD, noisy, seed=5).batches)
        for name in ("sarathi", "orca", "vllm_v1")
    ]
    shortest = min(map(len, runs))
    for other in runs[1:]:
        assert other[:shortest] == pytest.approx(runs[0][:shortest], rel=1e-9)
    again = factors(ls.simulate(baselines.sarathi, WORKLOAD, noisy, seed=5).batches)
    assert np.array_equal(again, runs[0])
    assert not np.allclose(factors(ls.simulate(baselines.sarathi, WORKLOAD, noisy, seed=6).batches)[:50], runs[0][:50])


def test_engines_of_a_network_have_noise_of_their_own():
    noisy = replace(ENGINE, step_noise=0.3)
    result = ls.simulate_network(baselines.sarathi, WORKLOAD, [noisy, noisy], routers.get("round_robin"), seed=1)
    first, second = (factors(result.batches[result.batches.engine == g]) for g in range(2))
    assert not np.allclose(first[:50], second[:50])


def test_schedulers_predict_with_what_they_believe():
    """`step_seconds` is by the believed law and host; the batch lasts as long as the engine's own."""
    believed = ls.Roofline(c=0.03, a_tok=0.0, a_tok_over=0.0, b0=1, a_kv=0.0, a_attn=0.0, a_ctx=0.0)
    engine = replace(ENGINE, believed_batch_time=believed, believed_host_overhead=(0.001, 0.0))
    predicted = []

    def compose(view):
        ls.decodes(view, view.running)
        ls.chunks(view, view.waiting, 512)
        if view.batch.counts.num_seqs > 0:
            predicted.append(ls.step_seconds(view))
        return math.inf

    workload = ls.Workload.from_arrays([0.0], [100], [3])
    result = ls.simulate(ls.Scheduler("watcher", compose), workload, engine, interpreted=True)
    assert predicted == pytest.approx([0.031] * 3)
    exact = [LAW.seconds(100), LAW.seconds(1), LAW.seconds(1)]
    assert result.batches.duration.tolist() == pytest.approx([seconds + 0.002 + 1e-5 for seconds in exact])


@pytest.mark.parametrize("name", ["sarathi", "orca", "vllm_v1"])
def test_belief_leaves_schedulers_alone_that_predict_nothing(name):
    wrong = replace(ENGINE, believed_batch_time=LAW.scaled(3.0), believed_host_overhead=(1.0, 1.0))
    exact, doubted = (ls.simulate(baselines.get(name), WORKLOAD, each, seed=2) for each in (ENGINE, wrong))
    assert np.array_equal(exact.requests.finish, doubted.requests.finish)


def test_belief_in_a_slow_machine_shrinks_the_batches_of_a_scheduler_that_plans():
    workload = WORKLOAD.with_slo(ls.SLO(ttft=2.0, tpot=0.03))
    tokens = []
    for law in (LAW, LAW.scaled(1.8)):
        believing = replace(ENGINE, believed_batch_time=law)
        rows = ls.simulate(baselines.get("slos_serve"), workload, believing, seed=2).batches
        tokens.append(rows.prefill_tokens[(rows.decode_tokens > 0) & (rows.prefill_tokens > 0)].mean())
    assert tokens[1] < tokens[0]


def test_believing_a_factor_or_a_profile():
    half = ENGINE.believing("0.5")
    assert half.believed_batch_time == LAW.scaled(0.5)
    assert half.believed_host_overhead == (0.001, 5e-6)
    other = ENGINE.believing("llama-3.1-8b_h100-80gb_tp1_aic")
    assert other.believed_batch_time == ls.gpu_profile("llama-3.1-8b_h100-80gb_tp1_aic").batch_time
    assert other.believed_host_overhead == (0.0, 0.0) and other.batch_time == LAW
    with pytest.raises(ValueError, match="believed must be a finite number > 0, got -1"):
        ENGINE.believing("-1")
    with pytest.raises(ValueError, match="did you mean 'llama-3.1-8b_h100-80gb_tp1_aic'"):
        ENGINE.believing("llama-3.1-8b_h100-80gb_tp1_aix")


def test_requests_beyond_the_context_length_are_turned_away():
    engine = replace(ENGINE, max_model_len=100)
    workload = ls.Workload.from_arrays([0.0, 0.0, 0.0, 1.0], [90, 90, 200, 99], [10, 11, 1, 1])
    with pytest.warns(UserWarning, match="engine: requests of more than max_model_len=100 tokens"):
        rows = ls.simulate(baselines.vllm_v1, workload, engine).requests
    assert rows.status.tolist() == ["finished", "rejected", "rejected", "finished"]
    assert rows.left[1] == 0.0 and rows.computed[1] == 0


def test_capacity_counts_requests_beyond_the_context_length_as_no_work():
    lengths = ls.Workload.from_arrays(np.arange(4.0), [90, 90, 200, 300], [10, 10, 20, 1])
    short = ls.Workload.from_arrays(np.arange(2.0), [90, 90], [10, 10])
    limited = replace(ENGINE, max_model_len=100)
    assert theory.capacity(limited, lengths) == pytest.approx(2 * theory.capacity(ENGINE, short))
    with pytest.raises(ValueError, match="max_model_len must let some requests in, got 50; the shortest has 100"):
        theory.capacity(replace(ENGINE, max_model_len=50), lengths)


def test_bounds_that_noise_breaks_are_refused():
    with pytest.raises(ValueError, match="step_noise must be 0"):
        theory.mean_latency_bound(WORKLOAD.sample(0), replace(ENGINE, step_noise=0.1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_noise": -0.1}, "step_noise must be a finite number >= 0 and <= 2"),
        ({"step_noise": 3.0}, "step_noise must be a finite number >= 0 and <= 2"),
        ({"step_noise": math.nan}, "step_noise must be"),
        ({"believed_batch_time": 0.8}, "believed_batch_time must be a Staircase, Hinge, Roofline or TabulatedLaw"),
        ({"believed_host_overhead": 0.1}, "believed_host_overhead must be"),
        ({"believed_host_overhead": (0.1, -1)}, "believed_host_overhead per request must be"),
        ({"max_model_len": 1}, "max_model_len must be an integer >= 2"),
        ({"max_model_len": 10.5}, "max_model_len must be an integer"),
    ],
)
def test_bad_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(ENGINE, **change)
