"""Calibration on a serving run: the factor is found again, and a real run is met."""

import json

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.calibration import MeasuredRun, calibrate_speed, engine_settings, read_run

BASE = "llama-3.1-8b_rtx4090-24gb_tp1_lss"
SCHEDULER = baselines.sarathi(token_budget=2048)


@pytest.fixture
def run_files(shared):
    stem = shared / "profiles/measured_runs/rtx4090_llama-3.1-8b"
    return f"{stem}.requests.jsonl", f"{stem}.meta.json"


def simulated_run(factor):
    base = ls.gpu_profile(BASE)
    engine = ls.EngineConfig(base.batch_time.scaled(factor), kv_blocks=base.kv_blocks())
    workload = ls.Workload.poisson(0.5, 800, 200, horizon=100.0)
    rows = ls.simulate(SCHEDULER, workload, engine, record="requests").requests
    times = rows.first_token - rows.arrival, rows.finish - rows.arrival
    return MeasuredRun(rows.arrival, rows.prompt_tokens, rows.output_tokens, *times)


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_the_factor_is_found_again(factor):
    with pytest.warns(UserWarning, match="does not hold the gaps between tokens .* so only the factor is found"):
        found = calibrate_speed(simulated_run(factor), ls.gpu_profile(BASE), SCHEDULER)
    assert found.steps is None and found.host_overhead == (0.0, 0.0)
    assert found.factor == pytest.approx(factor, rel=5e-3)
    assert all(abs(error) < 1 for error in found.errors_pct.values())


def test_a_real_run_is_met_within_3_percent(run_files, tmp_path):
    requests, meta = run_files
    run, settings = read_run(requests), engine_settings(meta)
    assert len(run.arrival) == 300 and (run.ttft > 0).all() and (run.e2el >= run.ttft).all()
    assert settings == {
        "token_budget": 2048,
        "max_num_seqs": 256,
        "kv_blocks": 2587,
        "block_size": 16,
        "max_model_len": 32768,
        "prefix_caching": True,
        "schedule_ahead": 1,
    }
    with pytest.warns(UserWarning, match="so only the factor is found"):
        found = calibrate_speed(run, ls.gpu_profile(BASE), SCHEDULER, settings)
    assert found.factor == pytest.approx(1, abs=0.05)
    assert all(abs(error) < 3 for error in found.errors_pct.values())
    saved = ls.gpu_profile(found.save(tmp_path / "mine.json"))
    expected = found.factor * ls.gpu_profile(BASE).batch_time.seconds(100, 5000)
    assert saved.batch_time.seconds(100, 5000) == pytest.approx(expected)
    assert saved.kv_blocks() == 2587  # as vLLM had, without its null block
    assert saved.max_model_len == 32768


def test_results_of_the_benchmark_are_runs_too(tmp_path):
    result = {
        "start_times": [2.0, 1.0, 3.0],
        "input_lens": [10, 20, 30],
        "output_lens": [3, 1, 0],
        "ttfts": [0.5, 0.25, 0.0],
        "itls": [[0.1, 0.2], [], []],
    }
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(result))
    run = read_run(path)
    assert run.arrival.tolist() == [0.0, 1.0] and run.prompt_tokens.tolist() == [20, 10]
    assert run.ttft.tolist() == [0.25, 0.5] and run.e2el == pytest.approx(np.array([0.25, 0.8]))
    assert [gaps.tolist() for gaps in run.gaps] == [[], [0.1, 0.2]]
    assert run.summary()["mean_tpot"] == pytest.approx(0.15)
    path.write_text(json.dumps(result | {"itls": []}))
    with pytest.raises(ValueError, match="itls must have one value per request"):
        read_run(path)


def test_malformed_runs(tmp_path):
    row = {"input_toks": 5, "output_toks": 2, "queued_ts": 1.0, "first_token_ts": 0.5, "last_token_ts": 2.0}
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=r"line 1, column first_token_ts must be > queued_ts \(1.0\)"):
        read_run(path)
    path.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="must be one of: .*queued_ts"):
        read_run(path)
    path.write_text('{"kv_cache": {"num_gpu_blocks": 0}}')
    with pytest.raises(ValueError, match="kv_cache.num_gpu_blocks must be an integer >= 2, got 0"):
        engine_settings(path)


def test_a_run_that_cannot_finish(run_files):
    with pytest.raises(ValueError, match="of 300 requests of the run do not finish"):
        calibrate_speed(read_run(run_files[0]), ls.gpu_profile(BASE), SCHEDULER, {"kv_blocks": 4})
