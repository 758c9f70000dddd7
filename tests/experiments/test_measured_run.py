"""Measured serving runs: what is read, what is compared, and how near the simulation of a real one comes."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import llmsched_env as ls
from experiments.measured_run import ServingRun, engine_of, fitted_factor, latencies, simulated, summary
from llmsched_env.calibration import MeasuredRun

RUN = "profiles/measured_runs/rtx4090_llama-3.1-8b.requests.jsonl"
NAMES = ("input_toks", "output_toks", "queued_ts", "first_token_ts", "last_token_ts")
META = {
    "model": "meta-llama/Llama-3.1-8B",
    "engine_kwargs": {"max_num_seqs": 8, "max_num_batched_tokens": 512, "tensor_parallel_size": 1},
    "kv_cache": {"num_gpu_blocks": 101, "block_size": 16, "enable_prefix_caching": False},
    "hardware": {"device_name": "NVIDIA GeForce RTX 4090"},
}


@pytest.fixture(scope="module")
def real(shared):
    return ServingRun.load(shared / RUN)


def write(folder, *rows, meta=META):
    path = folder / "toy.requests.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(dict(zip(NAMES, row, strict=True))) for row in rows]
    path.write_text("\n".join(lines))
    (folder / "toy.meta.json").write_text(json.dumps(meta))
    return path


def deviations(run, result):
    measured, ours = summary(run.requests), summary(MeasuredRun.from_result(result))
    return {name: abs(ours[name] / measured[name] - 1) for name in measured}


def test_a_real_run_is_near_with_the_profile_as_shipped(real):
    off = deviations(real, simulated(real))
    assert max(off[name] for name in ("mean_tpot", "makespan", "mean_ttft", "p99_ttft")) <= 0.15


def test_one_factor_fitted_on_a_third_brings_a_real_run_close(real):
    off = deviations(real, simulated(real, factor=fitted_factor(real)))
    assert off["mean_tpot"] <= 0.05 and off["makespan"] <= 0.05
    assert off["mean_ttft"] <= 0.10 and off["p99_ttft"] <= 0.10


def test_the_factor_of_a_simulated_run_is_found_again(real):
    run = replace(real, requests=MeasuredRun.from_result(simulated(real, factor=1.3)))
    assert fitted_factor(run) == pytest.approx(1.3, rel=0.01)


def test_rows_are_put_in_order_and_times_counted_from_the_first(tmp_path):
    run = ServingRun.load(write(tmp_path, (5, 2, 101.0, 102.0, 103.5), (7, 1, 100.5, 100.75, 100.75)))
    assert run.requests.arrival.tolist() == [0.0, 0.5] and run.requests.prompt_tokens.tolist() == [7, 5]
    seconds = latencies(run.requests)
    assert seconds["ttft"].tolist() == [0.25, 1.0]
    assert math.isnan(seconds["tpot"][0]) and seconds["tpot"][1] == 1.5
    engine = engine_of(run, factor=2.0)
    assert engine.name == run.profile == "llama-3.1-8b_rtx4090-24gb_tp1_lss"
    assert (engine.kv_blocks, engine.schedule_ahead, engine.prefix_caching) == (100, 1, False)
    assert engine.batch_time.c == 2 * ls.EngineConfig.for_gpu(run.profile).batch_time.c
    assert np.isfinite(MeasuredRun.from_result(simulated(run)).e2el).all()


def test_malformed_rows_are_named(tmp_path):
    with pytest.raises(ValueError, match="line 2, column first_token_ts must be"):
        ServingRun.load(
            write(tmp_path, (5, 2, 101.0, 102.0, 103.5), '{"input_toks": 3, "output_toks": 1, "queued_ts": 1}')
        )


def test_an_unknown_machine_needs_a_profile(tmp_path):
    meta = {**META, "hardware": {"device_name": "Abacus"}}
    run = ServingRun.load(write(tmp_path, (5, 2, 101.0, 102.0, 103.5), meta=meta))
    with pytest.raises(ValueError, match="profile must be given: none fit llama-3.1-8b on abacus"):
        engine_of(run)
    assert engine_of(run, "llama-3.1-8b_h100-80gb_tp1_aic").kv_blocks == 100
