"""A known profile made to fit an engine: factor, host time, noise and belief are found again."""

import json
from dataclasses import replace

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.calibration import Batches, batches_of, calibrate_speed, read_run
from llmsched_env.calibration.observed_steps import observed_steps
from llmsched_env.calibration.step_fit import fit_steps
from tests.calibration.bench_result import write_bench_result

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # doubts, which the tests look at as such
BASE = "llama-3.1-8b_h100-80gb_tp1_aic"
SCHEDULER = baselines.sarathi(token_budget=2048)


def engine_of(factor=1.3, host=(0.004, 3e-5), noise=0.1, **settings):
    """The profile `factor` times as slow, on a host, while schedulers believe the profile."""
    base = ls.gpu_profile(BASE)
    return ls.EngineConfig(
        base.batch_time.scaled(factor),
        token_budget=2048,
        host_overhead=host,
        step_noise=noise,
        believed_batch_time=base.batch_time,
        believed_host_overhead=(0.0, 0.0),
        **{"kv_blocks": base.kv_blocks(), **settings},
    )


def run_of(engine, rate=14.0, horizon=200.0, seed=0):
    lengths = ls.dist.Geometric(800), ls.dist.Geometric(200)
    workload = ls.Workload.poisson(rate, *lengths, horizon=horizon)
    return ls.simulate(SCHEDULER, workload, engine, record="entries", seed=seed)


def drawn(engine, n=5000, seed=0):
    """Rows of all sizes, from decodes alone to full prefill, as an engine would have logged them."""
    rng = np.random.default_rng(seed)
    decodes = rng.integers(1, 257, n).astype(float)
    prefill = np.where(rng.random(n) < 0.4, rng.integers(1, 2000, n), 0).astype(float)
    context = np.where(prefill > 0, rng.integers(0, 4000, n), 0).astype(float)
    pairs = prefill * (context + (prefill + 1) / 2)
    requests = decodes + (prefill > 0)
    rows = Batches(decodes + prefill, decodes * rng.integers(10, 3000, n), pairs, context, requests, np.ones(n))
    seconds = (
        engine.batch_time.seconds(*rows.composition) + engine.host_overhead[0] + engine.host_overhead[1] * requests
    )
    noise = engine.step_noise
    return replace(rows, seconds=seconds * np.exp(noise * rng.standard_normal(n) - noise**2 / 2))


def measured(kind, result, tmp_path):
    return batches_of(result) if kind == "rows" else read_run(write_bench_result(result, tmp_path / "bench.json"))


@pytest.mark.parametrize("kind", ["rows", "bench"])
@pytest.mark.parametrize(("seed", "schedule_ahead"), [(1, 0), (2, 1), (3, 1)])
def test_a_simulated_engine_is_found_again_within_5_percent(kind, seed, schedule_ahead, tmp_path):
    engine = engine_of(noise=0.1, schedule_ahead=schedule_ahead)
    run = measured(kind, run_of(engine, seed=seed, horizon=400.0), tmp_path)
    settings = {"token_budget": 2048, "schedule_ahead": schedule_ahead}
    found = calibrate_speed(run, ls.gpu_profile(BASE), SCHEDULER, settings, belief="profile")
    assert found.factor == pytest.approx(1.3, rel=0.05)
    assert found.host_overhead[0] == pytest.approx(0.004, rel=0.05)
    assert found.host_overhead[1] == pytest.approx(3e-5, rel=0.05)
    assert found.step_noise == pytest.approx(0.1, rel=0.05)
    assert found.steps.total_ratio == pytest.approx(1, abs=0.01)
    assert all(abs(error) < 5 for error in found.errors_pct.values()) and found.doubts == ()
    assert found.engine.believed_law() == engine.believed_law()


@pytest.mark.parametrize("noise", [0.1, 0.25])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_of_all_sizes_tell_all_terms_apart(noise, seed):
    found = calibrate_speed(drawn(engine_of(noise=noise), n=30000, seed=seed), ls.gpu_profile(BASE))
    assert found.factor == pytest.approx(1.3, rel=0.05)
    assert found.host_overhead == pytest.approx((0.004, 3e-5), rel=0.05)
    assert found.step_noise == pytest.approx(noise, rel=0.05)


def test_strong_noise_in_a_run_leaves_the_truth_in_the_intervals(tmp_path):
    run = measured("bench", run_of(engine_of(noise=0.25), seed=4), tmp_path)
    found = calibrate_speed(run, ls.gpu_profile(BASE), SCHEDULER, {"token_budget": 2048})
    assert found.factor == pytest.approx(1.3, rel=0.05) and found.step_noise == pytest.approx(0.25, rel=0.05)
    truth = {"factor": 1.3, "host_batch": 0.004, "host_request": 3e-5, "step_noise": 0.25}
    for name, value in truth.items():
        low, high = found.steps.intervals[name]
        assert low - 0.3 * (high - low) < value < high + 0.3 * (high - low), name


def test_intervals_hold_the_truth_as_often_as_they_say():
    law = ls.gpu_profile(BASE).batch_time
    fits = [fit_steps(drawn(engine_of(noise=0.2), n=600, seed=seed), law).intervals for seed in range(60)]
    for name, truth in {"factor": 1.3, "host_batch": 0.004, "host_request": 3e-5, "step_noise": 0.2}.items():
        inside = np.mean([low < truth < high for low, high in (own[name] for own in fits)])
        assert inside > 0.85, name


@pytest.mark.parametrize("kind", ["rows", "bench"])
def test_what_is_too_small_to_be_seen_is_not_invented(kind, tmp_path):
    run = measured(kind, run_of(engine_of(host=(0.0, 1e-6)), seed=5), tmp_path)
    found = calibrate_speed(run, ls.gpu_profile(BASE), SCHEDULER, {"token_budget": 2048})
    assert found.host_overhead == (0.0, 0.0) and found.factor == pytest.approx(1.3, rel=0.01)
    assert set(found.steps.left_out) == {"host_batch", "host_request"}
    assert "not told apart from 0" in found.report()
    low, high = found.steps.intervals["host_request"]
    assert low < 1e-6 < high


def test_exact_rows_have_no_host_time_of_the_size_of_rounding_errors():
    found = calibrate_speed(drawn(engine_of(host=(0.0, 0.0), noise=0.0)), ls.gpu_profile(BASE))
    assert found.host_overhead == (0.0, 0.0) and found.factor == pytest.approx(1.3) and found.step_noise < 1e-9
    seen = calibrate_speed(drawn(engine_of(host=(0.004, 1e-6), noise=0.0)), ls.gpu_profile(BASE))
    assert seen.host_overhead == pytest.approx((0.004, 1e-6), rel=1e-3)


def test_tokens_of_one_moment_are_no_step(tmp_path):
    """A client that was busy reads two tokens of a request at once."""
    path = write_bench_result(run_of(engine_of(noise=0.0), rate=2.0, horizon=60.0), tmp_path / "bench.json")
    numbers = json.loads(path.read_text())
    for gaps in numbers["itls"][::3]:
        gaps[3:5] = [sum(gaps[3:5]), 0.0] if len(gaps) > 4 else gaps[3:5]
    path.write_text(json.dumps(numbers))
    found = calibrate_speed(read_run(path), ls.gpu_profile(BASE), SCHEDULER, {"token_budget": 2048})
    assert found.factor == pytest.approx(1.3, rel=0.02) and found.host_overhead[0] == pytest.approx(0.004, rel=0.05)


def test_steps_that_are_all_alike_yield_the_factor_alone():
    law, n = ls.gpu_profile(BASE).batch_time, 500
    rng = np.random.default_rng(0)
    context = rng.integers(900, 1100, n).astype(float)
    rows = Batches(np.ones(n), context, np.zeros(n), np.zeros(n), np.ones(n), np.ones(n))
    seconds = (1.2 * law.seconds(*rows.composition) + 0.004) * np.exp(0.1 * rng.standard_normal(n) - 0.005)
    with pytest.warns(UserWarning, match="host time a step is not told apart from 0"):
        found = calibrate_speed(replace(rows, seconds=seconds), ls.gpu_profile(BASE))
    assert set(found.steps.left_out) == {"host_batch", "host_request"}
    assert any("host time a step is not told apart from 0, nor from" in doubt for doubt in found.doubts)
    assert found.after["total"] == pytest.approx(found.measured["total"], rel=0.01)


def test_rows_without_requests_have_no_time_a_request():
    rows = drawn(engine_of(host=(0.004, 0.0)))
    found = calibrate_speed(replace(rows, num_seqs=np.full(len(rows), np.nan)), ls.gpu_profile(BASE))
    assert found.host_overhead[1] == 0 and "requests of a batch unknown" in found.report()
    assert found.host_overhead[0] == pytest.approx(0.004, rel=0.05)


def test_wrong_laws_and_slow_stretches_are_doubted():
    rows = drawn(engine_of())
    slow = np.where(np.arange(len(rows)) < len(rows) / 2, 1.0, 1.6)
    found = calibrate_speed(replace(rows, seconds=rows.seconds * slow), ls.gpu_profile(BASE))
    assert any("is shared by successive steps" in doubt for doubt in found.doubts)


def test_steps_are_seen_exactly_in_token_times(tmp_path):
    engine = engine_of(noise=0.0, schedule_ahead=1)
    result = run_of(engine, rate=20.0, horizon=40.0)
    steps = observed_steps(measured("bench", result, tmp_path), 2048, schedule_ahead=1)
    assert len(steps.batches) > 0.95 * len(result.batches) and steps.batches.hold_prefill.sum() > 100
    law = engine.batch_time
    expected = law.seconds(*steps.batches.composition) + 0.004 + 3e-5 * steps.batches.num_seqs
    assert steps.batches.seconds == pytest.approx(expected, rel=1e-6)


def test_a_run_with_all_seats_taken(tmp_path):
    """Where requests wait for a seat, when their prompts began is only sometimes certain."""
    settings = {"token_budget": 2048, "max_num_seqs": 128, "schedule_ahead": 1}
    engine = engine_of(max_num_seqs=128, schedule_ahead=1)
    run = read_run(write_bench_result(run_of(engine, rate=25.0, horizon=100.0), tmp_path / "bench.json"))
    found = calibrate_speed(run, ls.gpu_profile(BASE), SCHEDULER, settings)
    assert found.factor == pytest.approx(1.3, rel=0.05) and found.step_noise == pytest.approx(0.1, rel=0.05)
    assert found.host_overhead == pytest.approx((0.004, 3e-5), rel=0.1)


def test_late_clients_and_preemptions_do_little_harm(tmp_path):
    engine = engine_of(kv_blocks=3000)
    result = run_of(engine, rate=20.0)
    assert result.requests.preemptions.sum() > 50
    run = read_run(write_bench_result(result, tmp_path / "bench.json", jitter=0.0005))
    found = calibrate_speed(run, ls.gpu_profile(BASE), SCHEDULER, {"token_budget": 2048, "kv_blocks": 3000})
    assert found.factor == pytest.approx(1.3, rel=0.05) and found.host_overhead[0] == pytest.approx(0.004, rel=0.1)
    assert found.step_noise == pytest.approx(0.1, rel=0.1)


def test_merged_tokens_leave_the_factor_alone(tmp_path):
    path = write_bench_result(run_of(engine_of(noise=0.0), rate=2.0, horizon=60.0), tmp_path / "bench.json")
    numbers = json.loads(path.read_text())
    numbers["itls"] = [[a + b for a, b in zip(gaps[::2], gaps[1::2], strict=False)] for gaps in numbers["itls"]]
    path.write_text(json.dumps(numbers))
    found = calibrate_speed(read_run(path), ls.gpu_profile(BASE), SCHEDULER, {"token_budget": 2048})
    assert found.steps is None and found.host_overhead == (0.0, 0.0) and found.factor > 1.3
    assert any("more or fewer gaps than tokens, so only the factor is found" in doubt for doubt in found.doubts)


def test_the_saved_profile_is_the_engine(tmp_path):
    rows = drawn(engine_of(noise=0.2))
    found = calibrate_speed(rows, ls.gpu_profile(BASE), belief="profile")
    engine = ls.EngineConfig.for_gpu(str(found.save(tmp_path / "mine.json")))
    assert engine.host_overhead == pytest.approx(found.host_overhead) and engine.step_noise == found.step_noise
    assert engine.batch_time.coefficients() == pytest.approx(found.engine.batch_time.coefficients())
    believed = ls.gpu_profile(BASE).batch_time.coefficients()
    assert engine.believed_batch_time.coefficients() == pytest.approx(believed)
    assert engine.believed_host_overhead == (0.0, 0.0)
    quiet = ls.EngineConfig.for_gpu(str(tmp_path / "mine.json"), step_noise=0.0, believed_batch_time=None)
    assert quiet.step_noise == 0 and quiet.believed_batch_time is None
    known = ls.EngineConfig.for_gpu(str(calibrate_speed(rows, ls.gpu_profile(BASE)).save(tmp_path / "known.json")))
    assert known.believed_batch_time is None and known.believed_host == known.host_overhead


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host_overhead_ms": [1]}, "host_overhead_ms must be two numbers"),
        ({"host_overhead_ms": [-1, 0]}, "host_overhead"),
        ({"step_noise": -0.1}, "step_noise must be a finite number >= 0"),
        ({"believed": 3}, "believed must be an object with form"),
        ({"believed": {"form": "cubic"}}, "believed.form must be one of the known names, got 'cubic'"),
    ],
)
def test_malformed_engines_in_profile_files(tmp_path, change, message):
    path = calibrate_speed(drawn(engine_of()), ls.gpu_profile(BASE), belief="profile").save(tmp_path / "mine.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        ls.EngineConfig.for_gpu(str(path))


def test_wrong_arguments():
    base = ls.gpu_profile(BASE)
    with pytest.raises(ValueError, match="belief must be one of the known names, got 'mine'"):
        calibrate_speed(drawn(engine_of()), base, belief="mine")
    with pytest.raises(ValueError, match="needs 30 steps or more, got 7"):
        calibrate_speed(drawn(engine_of(), n=7), base)
    with pytest.raises(ValueError, match="scheduler must be what composed the batches"):
        calibrate_speed(calibrate_run(), base)


def calibrate_run():
    from llmsched_env.calibration import MeasuredRun

    return MeasuredRun(np.zeros(1), np.ones(1, int), np.ones(1, int), np.ones(1), np.ones(1))
