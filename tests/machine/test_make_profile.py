"""Profiles made of a stand-in for aiconfigurator-core: fitted, kept, used again; and what is said without it."""

import json
import math

import numpy as np
import pytest

import llmsched_env as ls
from llmsched_env.machine.aiconfigurator import Deployment, Estimator, models_by_system
from llmsched_env.machine.kept_profiles import kept_profiles
from llmsched_env.machine.make_profile import make_profile
from llmsched_env.machine.priced_batches import drawn, priced, range_of
from llmsched_env.machine.tabulated_law import TabulatedLaw

NAME = "moe-8b_h9-sxm_tp1_ep1_vllm"
MOE = {"model": "Acme/Moe-8B", "system": "h9_sxm"}


def test_drawn_batches_cover_the_range_in_thirds():
    batches = drawn(3000, 0, longest=10_000)
    alone, prompts = (batches.prompts == 0).sum(), (batches.decodes == 0).sum()
    assert (alone, prompts) == (1000, 1000)
    found = range_of(batches)
    assert found["decodes"] == (1, 512) and found["prompts"] == (1, 4) and found["prompt_context"][0] == 0
    assert found["tokens"][1] > 16384 and np.max(batches.prompt_tokens + batches.prompt_context) <= 10_000
    sizes = batches.decodes[batches.decodes > 0]
    assert np.mean(sizes <= math.sqrt(512)) == pytest.approx(0.5, abs=0.05)  # as many below the middle as above


def test_batches_are_priced_as_they_are(package):
    estimator = Estimator(Deployment(**MOE))
    drawn_batches = drawn(30, 0)
    batches = priced(estimator, drawn_batches)
    k = int(np.argmax((drawn_batches.prompts > 1) & (drawn_batches.decodes > 0)))
    row = [int(part[k]) for part in drawn_batches]
    decodes, context, prompts, tokens, before = row
    assert batches.seconds[k] == estimator.seconds(*row)
    assert batches.total_tokens[k] == decodes + prompts * tokens and batches.num_seqs[k] == decodes + prompts
    assert batches.decode_kv_tokens[k] == decodes * context
    assert batches.prefill_attn_pairs[k] == prompts * sum(before + i for i in range(1, tokens + 1))
    assert batches.prefill_context_tokens[k] == prompts * before


def test_a_profile_is_made_and_says_how(package, kept):
    profile = make_profile(**MOE)
    assert profile.name == NAME and kept_profiles() == [NAME] and (kept / f"{NAME}.json").exists()
    assert isinstance(profile.batch_time, TabulatedLaw) and profile.staircase is profile.hinge is None
    assert (profile.model, profile.gpu, profile.tensor_parallel) == ("Acme/Moe-8B", "h9_sxm", 1)
    assert profile.max_model_len == 20_000
    assert 0 < profile.mape_pct < 2 and profile.mape_pct < profile.p95_ape_pct < 6
    assert profile.made_with == {"aiconfigurator-core": "9.9", "vllm": "1.0"} and "9.9" in profile.source
    assert profile.range["decodes"] == (1, 512) and profile.warnings == ()
    free = 0.5 * 16e9 - 6e9
    assert profile.kv_blocks(0.5) == int(free // (16 * 1024))


def test_degrees_are_part_of_the_name_and_the_memory_of_all_gpus_counts(package):
    profile = make_profile("moe-8b", "H9-SXM", tp=2, ep=2, backend="trtllm")
    assert profile.name == "moe-8b_h9-sxm_tp2_ep2_trtllm"
    assert (profile.tensor_parallel, profile.expert_parallel) == (2, 2)
    assert profile.kv_bytes_per_token == 2048  # of both GPUs
    assert profile.kv_blocks(0.5) == int(2 * (0.5 * 16e9 - 6e9) // (16 * 2048))


def test_a_kept_profile_is_used_again_by_model_and_by_name(package, missing_later):
    made = ls.EngineConfig.for_gpu(**MOE, gpu_memory_utilization=0.8, token_budget=2048)
    missing_later()
    again = ls.EngineConfig.for_gpu(**MOE, gpu_memory_utilization=0.8, token_budget=2048)
    by_name = ls.EngineConfig.for_gpu(NAME, gpu_memory_utilization=0.8, token_budget=2048)
    assert made == again == by_name
    assert made.max_model_len == 20_000 and made.token_budget == 2048 and made.name == NAME
    assert ls.EngineConfig.for_gpu(model="moe-8b", system="h9_sxm").batch_time == made.batch_time
    with pytest.raises(ImportError, match="needs aiconfigurator-core"):  # another model of that name
        ls.EngineConfig.for_gpu(model="Other/Moe-8B", system="h9_sxm")


@pytest.fixture
def missing_later(monkeypatch):
    from llmsched_env.machine import aiconfigurator

    return lambda: monkeypatch.setattr(aiconfigurator, "find_spec", lambda name: None)


def test_it_is_made_anew_on_demand(package):
    before = make_profile(**MOE)
    package("prices", slower={"vllm": 2.0, "sglang": 2.2, "trtllm": 1.8})
    assert make_profile(**MOE) == before
    anew = make_profile(**MOE, anew=True)
    assert anew.batch_time.seconds(64) == pytest.approx(2 * before.batch_time.seconds(64), rel=1e-4)


def test_time_that_falls_is_said_with_numbers(package):
    package("prices", dip=0.5)
    [warning] = make_profile(**MOE).warnings
    assert "time falls by" in warning and "for 32 decodes" in warning and "for 64 decodes" in warning


@pytest.mark.parametrize(
    ("slower", "said"),
    [
        ({"vllm": 2.0, "sglang": 1.1, "trtllm": 1.0}, ["1.8 times as long as with those of sglang", "vllm 1.0 look"]),
        ({"vllm": 1.0, "sglang": 2.0, "trtllm": 2.0}, ["0.5 times as long as with those of sglang", "vllm 1.0 look"]),
        ({"vllm": 1.0, "sglang": 2.0, "trtllm": 1.1}, []),  # one of the others agrees
    ],
    ids=str,
)
def test_engines_that_disagree_are_named(package, slower, said):
    package("prices", slower=slower)
    warnings = make_profile(**MOE).warnings
    assert [warning.split(", ")[1].split(" take")[0] for warning in warnings] == (
        ["decode steps", "steps with prefill"] if said else []
    )
    assert all(words in warning for warning in warnings for words in said)


def test_prices_that_nothing_confirms_are_called_so(package, monkeypatch):
    monkeypatch.setattr("llmsched_env.machine.outliers.BACKENDS", ("vllm",))
    [warning] = make_profile(**MOE).warnings
    assert "no other engine" in warning


def test_memory_of_first_tokens_is_said(package):
    package("memory", first_token=4096)
    profile = make_profile(**MOE)
    assert profile.kv_bytes_per_token == 1024
    [warning] = profile.warnings
    assert "4,096 against 1,024 bytes" in warning


def test_without_a_context_length_requests_have_no_limit(package):
    assert ls.EngineConfig.for_gpu(model="Dense-7B", system="l9").max_model_len is None


def test_a_model_may_be_the_folder_of_its_configuration(package, tmp_path, monkeypatch, kept):
    folder = tmp_path / "Own-13B"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"model must be .*Own-13B.*folder with its config.json"):
        make_profile(str(folder), "l9")
    (folder / "config.json").write_text("{}")
    profile = make_profile(str(folder), "l9")
    assert profile.name == "own-13b_l9_tp1_ep1_vllm" and profile.model == "Own-13B"
    assert len(profile.warnings) == 1 and "not tested with it" in profile.warnings[0]
    assert str(tmp_path) not in (kept / f"{profile.name}.json").read_text()
    monkeypatch.chdir(folder)
    assert make_profile(".", "l9") == profile


def test_only_measured_models_are_listed(package):
    assert models_by_system() == dict.fromkeys(("h9_sxm", "l9"), ["Acme/Dense-7B", "Acme/Moe-8B"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "Acme/Mow-8B", "system": "l9"}, "model must be .*got 'Acme/Mow-8B'; did you mean 'Acme/Moe-8B'"),
        ({"model": "Acme/Huge-1T", "system": "l9"}, "model must be .*profiles --can-make.*llmsched calibrate"),
        ({"model": "Acme/Moe-8B", "system": "h9"}, "system must be .*got 'h9'; did you mean 'h9_sxm'"),
        ({**MOE, "tp": 3}, "cannot price Acme/Moe-8B on h9_sxm with tp=3, ep=1.*divisible by tp_size"),
        ({**MOE, "tp": 0}, "tp must be an integer >= 1 .*got 0"),
        ({**MOE, "tp": 2, "ep": 3}, "ep must divide tp = 2, got 3"),
        ({**MOE, "backend": "vlm"}, "backend must be .*got 'vlm'; did you mean 'vllm'"),
        ({"model": "Acme/Moe-8B"}, "system must say which GPU Acme/Moe-8B runs on.*got None"),
        ({"system": "l9"}, "either a profile or a model with its system"),
        ({"profile": "x", **MOE}, "either a profile or a model with its system"),
        ({"profile": "llama-3.1-8b_h100-80gb_tp1_aic", "tp": 2}, "go with model=.*not with the profile"),
    ],
    ids=str,
)
def test_what_cannot_be_made_is_refused(package, kept, arguments, message):
    with pytest.raises(ValueError, match=message):
        ls.EngineConfig.for_gpu(**arguments)
    assert not kept.exists()


def test_without_the_package_it_is_said_how_to_get_it(missing, kept):
    with pytest.raises(ImportError, match=r"pip install 'llmsched_env\[profiles\]'.*llmsched calibrate"):
        ls.EngineConfig.for_gpu(**MOE)
    with pytest.raises(ImportError, match=r"pip install 'llmsched_env\[profiles\]'"):
        models_by_system()
    assert not kept.exists() and kept_profiles() == []
    assert ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic").kv_blocks > 0


def test_a_broken_kept_file_is_named(package, kept):
    make_profile(**MOE)
    path = kept / f"{NAME}.json"
    numbers = json.loads(path.read_text())
    path.write_text(json.dumps(numbers | {"tabulated": numbers["tabulated"] | {"decode": [[1, 5], [2, 4]]}}))
    with pytest.raises(ValueError, match=rf"{NAME}.json: TabulatedLaw.decode must not fall"):
        ls.gpu_profile(NAME)
    path.write_text(json.dumps(numbers | {"tabulated": numbers["tabulated"] | {"mixed": [[1, 5], 7]}}))
    with pytest.raises(ValueError, match=rf"{NAME}.json: tabulated.mixed\[1\] must be two numbers, got 7"):
        ls.gpu_profile(NAME)
