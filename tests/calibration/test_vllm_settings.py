"""Settings of vLLM runs: every one is used, checked, or named among what is assumed and left out."""

import json

import pytest

import llmsched_env as ls
from llmsched_env.calibration import VllmSettings

KWARGS = {"model": "meta-llama/Llama-3.1-8B", "max_num_batched_tokens": 2048, "max_num_seqs": 128}
RTX = "llama-3.1-8b_rtx4090-24gb_tp1_lss"


@pytest.fixture
def read(tmp_path):
    """A function that reads settings given as keyword arguments."""

    def read(**groups):
        path = tmp_path / "meta.json"
        path.write_text(json.dumps(groups))
        return VllmSettings.read(path)

    return read


def texts(settings, kind):
    return " | ".join(note.text for note in settings.notes if note.kind == kind)


def test_what_is_not_said_is_assumed_aloud(read):
    settings = read(engine_kwargs=KWARGS)
    assumed = texts(settings, "assumed")
    for name in ("enable_prefix_caching", "async_scheduling", "enable_chunked_prefill", "blocks of 16"):
        assert name in assumed
    assert settings.engine == {
        "token_budget": 2048,
        "max_num_seqs": 128,
        "block_size": 16,
        "prefix_caching": True,
        "schedule_ahead": 1,
    }
    engine, notes = settings.engine_of(ls.gpu_profile(RTX))
    assert engine["kv_blocks"] == ls.gpu_profile(RTX).kv_blocks() and "KV blocks" in notes[-1].text


def test_what_is_said_is_used(read):
    settings = read(
        engine_kwargs={**KWARGS, "max_model_len": None, "data_parallel_size": 2, "watermark": 0.01},
        kv_cache={"num_gpu_blocks": 101, "block_size": 32, "enable_prefix_caching": False},
        resolved_config={
            "scheduler_config": {"max_num_seqs": 64, "async_scheduling": False, "enable_chunked_prefill": False},
            "model_config": {"max_model_len": 4096},
        },
    )
    assert settings.engine == {
        "token_budget": 2048,
        "max_num_seqs": 64,  # what vLLM made of it
        "block_size": 32,
        "kv_blocks": 100,
        "max_model_len": 4096,
        "prefix_caching": False,
        "schedule_ahead": 0,
    }
    assert settings.replicas == 2 and settings.scheduler["enable_chunked_prefill"] == 0
    assert settings.scheduler["watermark"] == 0.01
    assert read(engine_kwargs=KWARGS, kv_cache={"num_kv_tokens": 1600}).engine["kv_blocks"] == 99


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"enable_expert_parallel": True}, "enable_expert_parallel=True"),
        ({"enforce_eager": True}, "eager"),
        ({"kv_transfer_config": {"kv_connector": "NixlConnector"}}, "kv_transfer_config"),
        ({"brand_new_option": 7}, "engine_kwargs.brand_new_option=7"),
        ({"seed": 42}, "seed: no influence"),
    ],
)
def test_what_is_not_simulated_is_left_out_aloud(read, kwargs, text):
    assert text in texts(read(engine_kwargs={**KWARGS, **kwargs}), "left out")
    quiet = texts(read(engine_kwargs={**KWARGS, **dict.fromkeys(kwargs)}), "left out")
    assert text not in quiet


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size must be 1, got 2"),
        ({"speculative_config": {"method": "eagle"}}, "speculative_config must be off"),
        ({"max_num_seqs": 0}, r"engine_kwargs\.max_num_seqs must be"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
        ({"scheduling_policy": "sjf"}, "scheduling_policy must be fcfs or priority"),
    ],
)
def test_what_cannot_be_simulated_is_refused(read, kwargs, message):
    with pytest.raises(ValueError, match=message):
        read(engine_kwargs={**KWARGS, **kwargs})


def test_limits_must_be_given(read):
    with pytest.raises(ValueError, match=r"engine_kwargs\.max_num_batched_tokens must be given"):
        read(engine_kwargs={"max_num_seqs": 8}).limits()


def test_the_profile_is_that_of_model_device_and_degree(read):
    hardware = {"device_name": "NVIDIA GeForce RTX 4090"}
    assert read(engine_kwargs=KWARGS, hardware=hardware).shipped_profile() == RTX
    for groups, message in (
        ({"engine_kwargs": KWARGS}, r"has no hardware\.device_name"),
        ({"engine_kwargs": {**KWARGS, "tensor_parallel_size": 2}, "hardware": hardware}, "no shipped profile fits"),
        ({"engine_kwargs": {**KWARGS, "quantization": "fp8"}, "hardware": hardware}, "quantization=fp8"),
    ):
        with pytest.raises(ValueError, match=message):
            read(**groups).shipped_profile()


def test_a_profile_of_something_else_is_told(read):
    kwargs = {**KWARGS, "model": "Qwen/Qwen3-32B", "tensor_parallel_size": 2, "kv_cache_dtype": "fp8"}
    _, notes = read(engine_kwargs=kwargs, hardware={"device_name": "NVIDIA H100"}).engine_of(ls.gpu_profile(RTX))
    said = " | ".join(map(str, notes))
    for part in ("Qwen/Qwen3-32B", "NVIDIA H100", "tensor_parallel_size is 2", "kv_cache_dtype=fp8"):
        assert part in said
    _, notes = read(engine_kwargs={**KWARGS, "model": "Llama-3.1-8B-Instruct"}).engine_of(ls.gpu_profile(RTX))
    assert not any("though" in note.text for note in notes)
