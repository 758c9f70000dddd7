"""The law of two tables against numbers worked out by hand, in Python, in compiled code, and in the theory."""

import json
import warnings

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from baselines import routers
from llmsched_env import theory
from llmsched_env.testing import check_run

DECODE, MIXED = [(1, 1.0), (5, 3.0), (9, 4.0)], [(2, 2.0), (10, 10.0)]
LAW = ls.TabulatedLaw(DECODE, MIXED, a_seq=0.5, a_kv_decode=0.25, a_kv=0.125, a_attn=0.0625, a_ctx=0.03125)


@pytest.mark.parametrize(
    ("composition", "seconds"),
    [
        ((0,), 0.0),
        ((1,), 1.0),
        ((3,), 2.0),  # between knots
        ((5, 8), 3.0 + 2.0),  # decodes read 8 tokens of context, at the price of batches that only decode
        ((13,), 5.0),  # beyond the last knot with the last slope, 1/4
        ((1, 0, 1), 2.0 + 0.5 + 1 / 16),  # a prompt of one token: flat below the first knot
        ((6, 8, 10, 4, 3), 6.0 + 3 * 0.5 + 1.0 + 10 / 16 + 4 / 32),  # 3 requests
        ((12, 0, 78), 12.0 + 0.5 + 78 / 16),
    ],
)
def test_seconds(composition, seconds):
    assert LAW.seconds(*composition) == pytest.approx(seconds, abs=1e-12)


def test_arrays_and_scaling():
    tokens, pairs = np.array([[0], [3], [6]]), np.array([0, 10])
    assert LAW.seconds(tokens, 0, pairs).tolist() == [[0.0, 0.0], [2.0, 3.0 + 0.5 + 0.625], [3.25, 6.0 + 0.5 + 0.625]]
    double = LAW.scaled(2.0)
    assert double.seconds(6, 8, 10, 4, 3) == pytest.approx(2 * LAW.seconds(6, 8, 10, 4, 3))
    assert double.seconds(7, 8) == pytest.approx(2 * LAW.seconds(7, 8))
    assert LAW.range == (9, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decode": [(1, 1.0)]}, "decode must have 2 to 24 knots, got 1"),
        ({"mixed": [(k + 1, 1.0 + k) for k in range(25)]}, "mixed must have 2 to 24 knots, got 25"),
        ({"decode": [(1, 1.0), (1, 2.0)]}, "decode must be in order of tokens, got 1 and then 1 at knot 1"),
        ({"mixed": [(1, 2.0), (4, 1.0)]}, "mixed must not fall with tokens, got 2 and then 1 s at knot 1"),
        ({"decode": [(0, 1.0), (2, 2.0)]}, r"decode\[0\] tokens must be a finite number >= 1"),
        ({"decode": [(1.5, 1.0), (2, 2.0)]}, r"decode\[0\] tokens must be a whole number of tokens, got 1.5"),
        ({"decode": [(1, 0.0), (2, 2.0)]}, r"decode\[0\] must be a finite number > 0"),
        ({"decode": [(1, float("nan")), (2, 2.0)]}, r"decode\[0\] must be a finite number > 0"),
        ({"decode": "table"}, "decode must be a list"),
        ({"decode": [1, 2]}, "decode must be a list"),
        ({"a_seq": -1.0}, "a_seq must be a finite number >= 0"),
    ],
)
def test_bad_laws_are_refused(change, message):
    good = {name: getattr(LAW, name) for name in ("decode", "mixed", "a_seq", "a_kv_decode", "a_kv", "a_attn", "a_ctx")}
    with pytest.raises(ValueError, match=message):
        ls.TabulatedLaw(**good | change)


def test_lists_from_json_give_the_same_law():
    again = json.loads(json.dumps([LAW.decode, LAW.mixed]))
    assert ls.TabulatedLaw(*again, 0.5, 0.25, 0.125, 0.0625, 0.03125) == LAW


def test_one_request_by_hand():
    """A prompt of 6 tokens in chunks of 4 and 2, then two decodes of 7 and 8 tokens of context."""
    engine = ls.EngineConfig(LAW, token_budget=4, host_overhead=(0.5, 0.25))
    result = ls.simulate(baselines.sarathi(token_budget=4), ls.Workload.from_arrays([0.0], [6], [3]), engine)
    first = 4.0 + 0.5 + 10 / 16 + 0.75  # 1 + 2 + 3 + 4 pairs
    second = 2.0 + 0.5 + 11 / 16 + 4 / 32 + 0.75  # 5 + 6 pairs after 4 tokens
    decodes = 1.0 + 6 / 4 + 0.75, 1.0 + 7 / 4 + 0.75
    assert result.batches.duration.tolist() == pytest.approx([first, second, *decodes])
    assert result.requests.finish[0] == pytest.approx(first + second + sum(decodes))


def test_bounds_and_capacity_are_those_of_the_cheaper_table():
    law = ls.TabulatedLaw([(1, 0.010), (64, 0.030)], [(1, 0.012), (256, 0.040)], 1e-6, 1e-7, 2e-7, 1e-9, 1e-9)
    engine = ls.EngineConfig(law, token_budget=256, max_num_seqs=64, kv_blocks=2000)
    workload = ls.Workload.poisson(40.0, 60, 20, 20.0)
    assert theory.best_token_rate(engine) == pytest.approx(256 / 0.040, rel=1e-3)
    assert theory.fluid_capacity(engine, workload).rate <= theory.capacity(engine, workload)
    region = theory.stability_region(engine, workload)
    assert len(region.seconds) >= 2
    for seed in range(3):
        table = workload.sample(seed)
        for name in ("sarathi", "vllm_v1", "orca"):
            result = ls.simulate(baselines.get(name), workload, engine, seed=seed, record="entries")
            assert check_run(result) == []
            latency = float(np.mean(result.requests.finish - result.requests.arrival))
            assert theory.mean_latency_bound(table, engine) <= latency
            assert theory.makespan_bound(table, engine) <= result.requests.finish.max()


@pytest.mark.parametrize("workload", ["azure-code", "azure-chat", "sharegpt-chat"])
@pytest.mark.parametrize("profile", [name for name in ls.gpu_profiles() if name.endswith("_lss")])
def test_capacity_of_measured_tables_is_within_reach(profile, workload):
    """Below what no scheduler exceeds, and near it: loads are shares of it."""
    engine = ls.EngineConfig.for_gpu(profile)
    most = theory.fluid_capacity(engine, ls.preset(workload)).rate
    assert 0.75 * most <= theory.capacity(engine, ls.preset(workload)) <= most


def test_capacity_by_hand():
    """Two requests of 4 and 2 tokens: all together in batches of 4, or prompts and decodes apart."""
    law = ls.TabulatedLaw([(1, 1.0), (2, 1.25)], [(1, 2.0), (4, 4.0)], 0.25, 0.0, 0.5, 0.0, 0.0)
    workload = ls.Workload.from_arrays([0.0, 1.0], [4, 4], [2, 2])
    together = 5 * 4.0 / 4 + 0.5 * 4 + 0.25 * 2
    apart = 4 * 4.0 / 4 + 0.25 + 1 * 1.25 / 2
    engine = ls.EngineConfig(law, token_budget=4, max_num_seqs=2)
    assert theory.capacity(engine, workload) == pytest.approx(1 / min(together, apart))


def test_hindsight_wants_equal_batches():
    flat = ls.TabulatedLaw([(1, 1.0), (9, 1.0)], [(1, 2.0), (9, 2.0)], 0.0, 0.0, 0.0, 0.0, 0.0)
    engine = ls.EngineConfig(flat, kv_blocks=20, block_size=1, token_budget=9)
    table = ls.Workload.from_arrays([0.0], [2], [2]).sample(0)
    with pytest.raises(ValueError, match="batch_time must be the same for all batches"):
        theory.SlottedRequests.from_table(table, engine)


def test_batches_beyond_the_tables_are_named():
    workload = ls.Workload.from_arrays([0.0], [40], [2])
    within = ls.EngineConfig(LAW, token_budget=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ls.simulate(baselines.sarathi(token_budget=10), workload, within)
    beyond = ls.EngineConfig(LAW, token_budget=32, name="mine")
    expected = r"mine: some batches were longer than its tables .* \(9 tokens of decodes alone, 10 with prefill\)"
    with pytest.warns(UserWarning, match=expected):
        ls.simulate(baselines.sarathi(token_budget=32), workload, beyond)
    with pytest.warns(UserWarning, match=expected):
        ls.simulate_network(baselines.sarathi(token_budget=32), workload, [beyond], routers.get("round_robin"))
