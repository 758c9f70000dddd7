"""Shipped GPU profiles against the data they were taken from."""

import csv
import json
import math

import numpy as np
import pytest

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
        c, a_step, a_tok, a_tok_over, b0, a_kv, a_attn, a_ctx = profile.batch_time.coefficients()
        in_ms = [1e3 * x for x in (c, a_tok, a_tok_over, a_kv, a_attn, a_ctx)]
        assert in_ms == pytest.approx([r[key] for key in ("c", "a_tok", "a_tok_over", "a_kv", "a_attn", "a_ctx")]), name
        assert (a_step, b0) == (0, r["b0"])
        assert 1e3 * profile.staircase.seconds(b) == pytest.approx(s["c"] + s["a"] * np.ceil(b / 128)), name
        assert 1e3 * profile.hinge.seconds(b) == pytest.approx(h["c"] + h["a"] * np.maximum(0, b - h["b0"])), name
        assert profile.mape_pct == roofline["fit"]["mape_pct"]
        assert (profile.model, profile.gpu, profile.tensor_parallel, profile.source) == tuple(
            expected[key] for key in ("model", "gpu", "tensor_parallel", "source")
        )
        assert 16 * profile.kv_blocks(0.9, 16) == expected["memory"]["kv_capacity_tokens_at_0.9"], name


def test_roofline_has_the_listed_error_on_the_measured_batches(shared):
    batches: dict[str, list[list[float]]] = {}
    columns = ("total_tokens", "decode_kv_tokens", "prefill_attn_pairs", "prefill_context_tokens", "iter_ms")
    with (shared / "profiles/batch_times.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            batches.setdefault(row["profile"], []).append([float(row[column]) for column in columns])
    assert set(batches) == set(gpu_profiles())
    for name, rows in batches.items():
        *composition, measured_ms = np.array(rows).T
        predicted_ms = 1e3 * gpu_profile(name).batch_time.seconds(*composition)
        error = 100 * np.mean(np.abs(predicted_ms / measured_ms - 1))
        assert error == pytest.approx(gpu_profile(name).mape_pct, abs=0.5), name


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
