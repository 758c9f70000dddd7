"""What is made with aiconfigurator-core itself; `make profiles-test` runs this."""

import numpy as np
import pytest

import llmsched_env as ls
from llmsched_env.machine.aiconfigurator import Deployment, Estimator, models_by_system
from llmsched_env.machine.make_profile import make_profile
from llmsched_env.machine.priced_batches import Composition, priced

pytest.importorskip("aiconfigurator_core", reason="needs aiconfigurator-core: pip install 'llmsched_env[profiles]'")

PAIRS = [
    ("meta-llama/Meta-Llama-3.1-8B", "h100_sxm", 1),
    ("meta-llama/Meta-Llama-3.1-70B", "h200_sxm", 4),
    ("Qwen/Qwen3-30B-A3B", "h100_sxm", 1),
    ("Qwen/Qwen3-30B-A3B", "b200_sxm", 1),
    ("openai/gpt-oss-120b", "h100_sxm", 2),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(autouse=True)
def kept(folder, monkeypatch):
    """One folder of kept profiles for all tests of this file."""
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))


def log_uniform(rng, low, high, n):
    return np.round(np.exp(rng.uniform(np.log(low), np.log(high), n))).astype(int)


def held_out(n=500):
    """1 to 512 decodes, 1 to 4 prompts of 8 to 8192 tokens after 0 to 8192 others; a third of each kind."""
    rng, kind = np.random.default_rng(7), np.arange(n) % 3
    decodes = np.where(kind == 1, 0, log_uniform(rng, 1, 512, n))
    prompts = np.where(kind == 0, 0, rng.integers(1, 5, n))
    return Composition(
        decodes=decodes,
        decode_context=np.where(decodes > 0, log_uniform(rng, 8, 8192, n), 0),
        prompts=prompts,
        prompt_tokens=np.where(prompts > 0, log_uniform(rng, 8, 8192, n), 0),
        prompt_context=np.where(prompts > 0, log_uniform(rng, 1, 8193, n) - 1, 0),
    )


@pytest.mark.parametrize(("model", "system", "tp"), PAIRS, ids=str)
def test_the_law_of_a_profile_is_accurate(model, system, tp):
    profile = make_profile(model, system, tp)
    batches = priced(Estimator(Deployment(model, system, tp)), held_out())
    error = 100 * np.abs(profile.batch_time.seconds(*batches.composition) / batches.seconds - 1)
    assert np.mean(error) < 4 and np.quantile(error, 0.95) < 12
    assert profile.mape_pct < 4 and profile.p95_ape_pct < 12


@pytest.mark.parametrize("share", [0.85, 0.95])
def test_kv_blocks_are_those_of_the_package(share):
    from aiconfigurator_core.sdk import estimate_num_gpu_blocks

    for model, system, tp in PAIRS:
        expected = estimate_num_gpu_blocks(
            model,
            system,
            "vllm",
            "current",
            scheduler_block_size=16,
            max_num_tokens=8192,
            max_batch_size=256,
            memory_fraction_kind="of_total",
            memory_fraction_value=share,
            tp_size=tp,
            moe_tp_size=tp,
            moe_ep_size=1,
        )
        engine = ls.EngineConfig.for_gpu(model=model, system=system, tp=tp, gpu_memory_utilization=share)
        assert engine.kv_blocks == pytest.approx(expected, rel=1e-3), model


def test_mixtures_of_experts_are_concave_and_contexts_known():
    engine = ls.EngineConfig.for_gpu(model="Qwen3-30B-A3B", system="h100_sxm")
    times = [engine.batch_time.seconds(n) for n in (1, 16, 64, 256)]
    assert times[1] - times[0] > 15 * 2 * (times[3] - times[2]) / 192 > 0  # s a request, at first and later
    assert engine.max_model_len == 40960


def test_block_wise_fp8_of_vllm_is_called_slow():
    profile = make_profile("Qwen/Qwen3-30B-A3B-FP8", "h100_sxm")
    assert any("decode steps take" in warning and "sglang" in warning for warning in profile.warnings)


def test_a_model_in_a_folder_is_priced_by_its_sizes(tmp_path):
    import json

    from aiconfigurator_core.sdk.utils import get_model_config_from_model_path

    sizes = {"hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 40, "num_attention_heads": 40}
    config = dict(get_model_config_from_model_path("Qwen/Qwen3-8B")["raw_config"]) | sizes
    folder = tmp_path / "Qwen3-14B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    middle = ls.EngineConfig.for_gpu(model=str(folder), system="h100_sxm")
    small, large = (ls.EngineConfig.for_gpu(model=f"Qwen/Qwen3-{n}B", system="h100_sxm") for n in (8, 32))
    assert small.batch_time.seconds(64) < middle.batch_time.seconds(64) < large.batch_time.seconds(64)
    assert small.kv_blocks > middle.kv_blocks > large.kv_blocks and middle.max_model_len == 40960


def test_what_is_listed_can_be_made_and_what_is_not_is_refused():
    listed = models_by_system()
    assert all(
        (model, system) in {(m, s) for s, models in listed.items() for m in models} for model, system, _ in PAIRS
    )
    with pytest.raises(ValueError, match="tp=3, ep=1.*num_heads 32 should be divisible"):
        make_profile("Qwen/Qwen3-8B", "h100_sxm", 3)
    with pytest.raises(ValueError, match="no KV budget|cannot price"):
        make_profile("Qwen/Qwen3-235B-A22B", "h100_sxm")
