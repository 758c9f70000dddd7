"""Measured serving runs: what is read, what is compared, and how near the simulation of a real one comes."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from experiments.measured_run import ServingRun, latencies, summary
from experiments.measured_simulation import compare, fitted_factor, simulated
from llmsched_env.calibration import calibrate_speed

RTX = "llama-3.1-8b_rtx4090-24gb_tp1_lss"
ROWS = [(200 + 30 * k, 2, 0.1 * k, 0.1 * k + 0.1, 0.1 * k + 0.6) for k in range(6)]
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


@pytest.fixture(scope="module")
def engine(real):
    arguments, notes = real.settings.engine_of(ls.gpu_profile(RTX))
    assert notes == []
    return ls.EngineConfig.for_gpu(RTX, **arguments)


def deviations(comparison, name):
    return {metric: abs(row[name] / row["measured"] - 1) for metric, row in comparison.numbers.items()}


def test_a_real_run_is_near_as_shipped_and_close_when_fitted(real):
    found = compare(real)
    off = deviations(found, "uncalibrated")
    assert max(off[name] for name in ("mean_tpot", "makespan", "mean_ttft", "p99_ttft")) <= 0.15
    for name in ("one factor", "calibrated"):
        off = deviations(found, name)
        assert off["mean_tpot"] <= 0.05 and off["makespan"] <= 0.05
        assert off["mean_ttft"] <= 0.10 and off["p99_ttft"] <= 0.10


def test_the_factor_of_a_simulated_run_is_found_again(real, engine):
    run = replace(real, requests=simulated(real, engine, 1.3).requests)
    assert fitted_factor(run, lambda factor: simulated(run, engine, factor)) == pytest.approx(1.3, rel=0.01)


def test_rows_are_put_in_order_and_times_counted_from_the_first(tmp_path):
    run = ServingRun.load(write(tmp_path, (5, 2, 101.0, 102.0, 103.5), (7, 1, 100.5, 100.75, 100.75)))
    assert run.requests.arrival.tolist() == [0.0, 0.5] and run.requests.prompt_tokens.tolist() == [7, 5]
    seconds = latencies(run.requests)
    assert seconds["ttft"].tolist() == [0.25, 1.0]
    assert math.isnan(seconds["tpot"][0]) and seconds["tpot"][1] == 1.5
    shipped = compare(run).simulations["uncalibrated"]
    assert (shipped.engine.name, shipped.factor) == (RTX, 1.0)
    assert (shipped.engine.kv_blocks, shipped.engine.schedule_ahead, shipped.engine.prefix_caching) == (100, 1, False)
    assert np.isfinite(shipped.requests.e2el).all()


def test_all_layouts_of_a_run_are_read(tmp_path):
    path = write(tmp_path, *ROWS)
    folder = tmp_path / "some_model/vllm"
    folder.mkdir(parents=True)
    (folder / "requests.jsonl").write_text(path.read_text())
    (folder / "meta.json").write_text(json.dumps(META))
    (folder / "timeseries.csv").write_text("t,running,waiting,kv_cache_pct\n1.0,2,0,5.0\n")
    bench = tmp_path / "bench.json"
    columns = {"input_lens": 0, "output_lens": 1, "start_times": 2}
    result = {name: [row[k] for row in ROWS] for name, k in columns.items()}
    result |= {"ttfts": [row[3] - row[2] for row in ROWS], "itls": [[row[4] - row[3]] for row in ROWS]}
    bench.write_text(json.dumps(result))
    of_file, of_folder, of_member = map(ServingRun.load, (path, folder, folder / "requests.jsonl"))
    of_bench = ServingRun.load(bench, tmp_path / "toy.meta.json")
    assert [run.name for run in (of_file, of_folder, of_member, of_bench)] == ["toy", *["some_model"] * 2, "bench"]
    assert of_folder.seconds["running"].tolist() == [2.0] and of_file.seconds is None
    for run in (of_folder, of_member, of_bench):
        assert summary(run.requests) == pytest.approx(summary(of_file.requests)) and of_file.repeats(run)
    with pytest.raises(ValueError, match=r"--settings must be given: .*bench.json has no bench.meta.json"):
        ServingRun.load(bench)


def test_data_parallel_ranks_are_engines_of_their_own(tmp_path):
    meta = {**META, "engine_kwargs": {**META["engine_kwargs"], "data_parallel_size": 2}}
    rows = [(200, 20, 0.01 * k, 0.01 * k + 0.1, 0.01 * k + 0.6) for k in range(8)]
    found = compare(ServingRun.load(write(tmp_path, *rows, meta=meta)))
    used = found.simulations["uncalibrated"].result.requests.engine
    assert sorted(np.bincount(used)) == [4, 4]
    assert "calibrated" not in found.simulations and any("calibrated" in note.text for note in found.notes)


def test_repeats_show_their_spread(tmp_path):
    run, other = (ServingRun.load(write(tmp_path, (5, 2, 1.0, 2.0, end))) for end in (3.0, 4.0))
    found = compare(run, repeats=(other,))
    assert found.spread_pct["makespan"] == pytest.approx(100 * 1.0 / 2.5)
    assert found.spread_pct["mean_ttft"] == 0.0 and compare(run).spread_pct == {}


def test_malformed_rows_are_named(tmp_path):
    with pytest.raises(ValueError, match="line 2, column first_token_ts must be"):
        ServingRun.load(
            write(tmp_path, (5, 2, 101.0, 102.0, 103.5), '{"input_toks": 3, "output_toks": 1, "queued_ts": 1}')
        )


def test_an_unknown_machine_needs_a_profile(tmp_path):
    meta = {**META, "hardware": {"device_name": "Abacus"}}
    run = ServingRun.load(write(tmp_path, (5, 2, 101.0, 102.0, 103.5), meta=meta))
    with pytest.raises(ValueError, match="--engine must be given: no shipped profile fits .*Abacus"):
        compare(run)
    assert compare(run, RTX).simulations["uncalibrated"].engine.kv_blocks == 100


def test_a_calibrated_profile_file_is_taken(tmp_path):
    run = ServingRun.load(write(tmp_path, *ROWS))
    mine = tmp_path / "mine.json"
    calibrate_speed(run.requests, ls.gpu_profile(RTX), baselines.vllm_v1, run.settings.engine).save(mine)
    assert compare(run, str(mine)).profile.name == "mine"
