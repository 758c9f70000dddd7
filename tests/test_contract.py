"""The public names, called as they are documented."""

import numpy as np
import pytest

import baselines
import llmsched_env as ls

TRACE = "arrival,prompt_tokens,output_tokens\n0.0,100,10\n0.5,20,5\n1.5,300,2"


@pytest.fixture
def engine():
    return ls.EngineConfig(
        batch_time=ls.Staircase(c=0.01128, a=0.03547, b0=128),
        token_budget=16384,
        max_num_seqs=None,
        kv_blocks=None,
        block_size=16,
        first_token="with_prefill",
        schedule_ahead=0,
        host_overhead=(0.0, 0.0),
    )


def test_engines():
    assert ls.EngineConfig(ls.Hinge(0.01, 0.001, 128)).token_budget == 16384
    assert ls.EngineConfig(ls.Roofline(0.006, 9e-6, 1e-5, 384, 4e-8, 5e-10, 3e-8)).max_num_seqs is None
    gpu = ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic", gpu_memory_utilization=0.9)
    assert gpu.kv_blocks * gpu.block_size == 451568
    assert gpu.batch_time == ls.gpu_profile("llama-3.1-8b_h100-80gb_tp1_aic").batch_time
    assert ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic", token_budget=512, kv_blocks=None).kv_blocks is None


def test_workloads(engine, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    poisson = ls.Workload.poisson(rate=10.4, prompt_tokens=129, output_tokens=112, horizon=90.0)
    arrays = ls.Workload.from_arrays(
        [0.0, 1.0], [5, 6], [7, 8], client=None, klass=None, priority=None, slo=None, predicted_output=None
    )
    trace = ls.load_trace(path)
    preset = ls.preset("azure-chat", rate=None, horizon=600.0)
    for workload in (poisson, arrays, trace, preset):
        assert len(workload.sample(seed=0)) > 1
        assert workload.scaled(rate=8.0).rate == pytest.approx(8.0)
        assert workload.at_load(0.9, engine).rate == pytest.approx(0.9 * ls.theory.capacity(engine, workload))
    assert len(ls.Workload.poisson(5.0, ls.dist.Uniform(1, 9), ls.dist.Geometric(4), 100.0).sample(1)) > 300


def test_runs_and_results(engine):
    workload = ls.Workload.poisson(rate=10.4, prompt_tokens=129, output_tokens=112, horizon=9.0)
    result = ls.simulate(baselines.sarathi(token_budget=512), workload, engine, seed=0, horizon=None, record="batches")
    summary = result.summary(slo=ls.SLO(ttft=0.5, tpot=0.05), window=None)
    assert {
        "request_throughput",
        "output_throughput",
        "total_token_throughput",
        "request_goodput",
        "slo_attainment",
    } <= (summary.keys())
    for metric in ("ttft", "tpot", "itl", "e2el"):
        for statistic in ("mean", "median", "p99"):
            assert summary[f"{statistic}_{metric}_ms"] > 0
    assert result.summary(slo=ls.SLO(ttft=0.5, tpot=0.05), window=(1.0, 5.0))["num_requests"] < len(result.requests)
    assert result.backlog(3.0) > 0 and result.number_in_system(3.0) > 0
    assert np.shape(result.backlog(np.array([1.0, 2.0]))) == (2,)
    assert result.stalled is False and np.isnan(result.stalled_since)
    assert len(result.to_pandas()) == len(result.requests)
    assert result.batch_entries is None
    results = ls.simulate_many(baselines.orca, workload, engine, seeds=range(3))
    assert [r.seed for r in results] == [0, 1, 2]


def test_columns_of_the_rows(engine):
    workload = ls.Workload.from_arrays([0.0], [5], [7])
    result = ls.simulate(baselines.vllm_prefill_first, workload, engine, record="entries")
    requests = (
        "arrival first_scheduled first_token finish prompt_tokens output_tokens predicted_output computed generated "
        "preemptions recomputed prefix_hit status client klass priority session task engine ttft_slo tpot_slo"
    )
    batches = (
        "start duration prefill_tokens decode_tokens num_seqs num_waiting kv_blocks_used preemptions backlog "
        "num_in_system engine"
    )
    assert set(requests.split()) <= set(result.requests.dtype.names)
    assert set(batches.split()) <= set(result.batches.dtype.names)
    assert {"batch", "request", "tokens", "is_prefill"} <= set(result.batch_entries.dtype.names)


def test_registry():
    assert {"fastertransformer", "vllm_prefill_first", "orca", "sarathi"} <= baselines.REGISTRY.keys()
    for name, scheduler in baselines.REGISTRY.items():
        assert baselines.get(name) is scheduler is getattr(baselines, name)
        assert scheduler.name == name and scheduler.reference
    bound = baselines.sarathi(token_budget=128)
    assert bound.param_values()[0] == 128 and baselines.sarathi.param_values()[0] == 512


def test_scheduler_declaration():
    scheduler = ls.Scheduler(
        "mine",
        baselines.sarathi.compose,
        params={"token_budget": ls.Param(512, 1, 16384, "tokens")},
        memory={"client": ("counter",)},
        needs_lengths="no",
        work_conserving=True,
        mixes_phases=True,
        chunks_prefill=True,
        reference="none",
    )
    assert scheduler(token_budget=64).params == scheduler.params
