"""Shipped GPU profiles against the data they were taken from."""

import json
import math

import numpy as np
import pytest

from llmsched_env.calibration import read_batches
from llmsched_env.machine.profiles import gpu_profile, gpu_profiles

NAME = "llama-3.1-8b_h100-80gb_tp1_aic"


def test_laws_and_memory_are_those_of_the_reference_data(shared):
    reference = json.loads((shared / "profiles/gpu_profiles.json").read_text())["profiles"]
    assert gpu_profiles() == list(reference)
    b = np.arange(1, 1025)
    for name, expected in reference.items():
        profile = gpu_profile(name)
        roofline, curve = expected["forms"]["roofline"], expected["token_curve"]
        r, s, h = roofline["coef"], curve["staircase_b0_128"], curve["piecewise_best"]
        if not name.endswith("_lss"):  # fitted anew, as tables
            c, a_step, a_tok, a_tok_over, b0, a_kv, a_attn, a_ctx = profile.batch_time.coefficients()
            in_ms = [1e3 * x for x in (c, a_tok, a_tok_over, a_kv, a_attn, a_ctx)]
            keys = ("c", "a_tok", "a_tok_over", "a_kv", "a_attn", "a_ctx")
            assert in_ms == pytest.approx([r[key] for key in keys]), name
            assert (a_step, b0) == (0, r["b0"])
            assert profile.mape_pct == roofline["fit"]["mape_pct"]
        assert 1e3 * profile.staircase.seconds(b) == pytest.approx(s["c"] + s["a"] * np.ceil(b / 128)), name
        assert 1e3 * profile.hinge.seconds(b) == pytest.approx(h["c"] + h["a"] * np.maximum(0, b - h["b0"])), name
        assert (profile.model, profile.gpu, profile.tensor_parallel, profile.source) == tuple(
            expected[key] for key in ("model", "gpu", "tensor_parallel", "source")
        )
        assert 16 * profile.kv_blocks(0.9, 16) == expected["memory"]["kv_capacity_tokens_at_0.9"], name


def test_laws_have_the_listed_error_on_the_measured_batches(shared):
    batches = read_batches(shared / "profiles/batch_times.csv")
    assert set(batches) == set(gpu_profiles())
    for name, rows in batches.items():
        law = gpu_profile(name).batch_time
        error = 100 * np.mean(np.abs(law.seconds(*rows.composition) / rows.seconds - 1))
        assert error == pytest.approx(gpu_profile(name).mape_pct, abs=0.5), name


@pytest.mark.parametrize("name", [name for name in gpu_profiles() if name.endswith("_lss")])
def test_decodes_of_long_contexts_are_not_too_slow(shared, name):
    rows = read_batches(shared / "profiles/batch_times.csv")[name]
    long = rows.part(~rows.hold_prefill & (rows.decode_kv_tokens > 20_000))
    ratio = gpu_profile(name).batch_time.seconds(*long.composition) / long.seconds
    assert len(long) >= 5 and np.mean(ratio) == pytest.approx(1, abs=0.03)


def test_kv_blocks_follow_memory():
    profile = gpu_profile(NAME)
    free = 0.5 * profile.gpu_memory_bytes - profile.weight_bytes_per_gpu - profile.reserve_bytes_per_gpu
    assert profile.kv_blocks(0.5, 32) == math.floor(free / profile.kv_bytes_per_token / 32)
    assert profile.kv_blocks() > profile.kv_blocks(0.5)


@pytest.mark.parametrize("utilization", [0.0, -0.1, 1.01, math.nan, 0.2])
def test_kv_blocks_refuse_a_utilisation_that_is_no_share_or_leaves_no_room(utilization):
    with pytest.raises(ValueError, match="gpu_memory_utilization must be .*got"):
        gpu_profile(NAME).kv_blocks(utilization)


def test_unknown_profile_is_answered_with_the_closest_names():
    with pytest.raises(ValueError, match="'llama-3.1-8b_h100_tp1'.*did you mean.*llama-3.1-8b_h100-80gb_tp1_aic"):
        gpu_profile("llama-3.1-8b_h100_tp1")
