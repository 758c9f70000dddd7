"""A stand-in for aiconfigurator-core, in the shape of the parts of it that are used."""

import importlib
import sys

import pytest

from llmsched_env.machine import aiconfigurator

PACKAGE = {
    "__init__.py": "",
    "sdk/__init__.py": """
from aiconfigurator_core.sdk import prices
from aiconfigurator_core.sdk.memory import estimate_kv_cache


class RustForwardPassPerfModel:
    def __init__(self, config):
        self.config = config

    @classmethod
    def from_native(cls, config):
        if config["tp_size"] not in (1, 2):
            raise ValueError("num_heads 32 should be divisible by tp_size")
        return cls(config)

    def estimate_forward_pass_time_ms(self, metrics):
        return prices.milliseconds(self.config["backend"], **metrics["scheduled_requests"])
""",
    "sdk/prices.py": """
slower = {"vllm": 1.0, "sglang": 1.1, "trtllm": 0.9}
dip = 1.0  # what the time of 64 decodes is multiplied by


def milliseconds(
    backend, num_prefill_requests, sum_prefill_tokens, sum_prefill_kv_tokens, num_decode_requests, sum_decode_kv_tokens
):
    tokens = sum_prefill_tokens + num_decode_requests
    time = 4 + 20 * tokens / (tokens + 50) + 0.004 * tokens + 3e-5 * sum_decode_kv_tokens  # concave at first
    if num_prefill_requests:
        own, before = (x / num_prefill_requests for x in (sum_prefill_tokens, sum_prefill_kv_tokens))
        time += 0.5 + 1e-6 * num_prefill_requests * own * (before + (own + 1) / 2)
    return slower[backend] * time * (dip if num_decode_requests == 64 and not num_prefill_requests else 1)
""",
    "sdk/memory.py": """
first_token = 1024


def estimate_kv_cache(model_path, system, backend, version, *, memory_fraction_kind, memory_fraction_value, **more):
    assert memory_fraction_kind == ("of_free" if backend == "trtllm" else "of_total")
    assert more["moe_tp_size"] * more["moe_ep_size"] == more["tp_size"]
    parts = {"weights_bytes": 4 * 10**9, "activations_bytes": 10**9, "runtime_overhead_bytes": 10**9}
    capacity, taken = 16 * 10**9, sum(parts.values())
    free = (capacity - taken) * memory_fraction_value
    size = free if backend == "trtllm" else capacity * memory_fraction_value - taken
    return {
        "total_gpu_capacity_bytes": capacity,
        "total_kv_size_bytes": int(size),
        "kv_size_per_token_bytes": first_token,
        "total_kv_size_tokens": int(size // 1024),
        "memory_breakdown": parts,
    }
""",
    "sdk/common.py": """
def get_support_matrix():
    columns = ("HuggingFaceID", "System", "Backend", "Version", "Mode", "Status", "Source")
    good = [
        (model, system, backend, "1.0", "agg", "PASS", "silicon")
        for model in ("Acme/Moe-8B", "Acme/Dense-7B")
        for system in ("h9_sxm", "l9")
        for backend in ("vllm", "sglang", "trtllm")
    ]
    bad = [
        ("Acme/Huge-1T", "l9", "vllm", "1.0", "agg", "FAIL", ""),
        ("Acme/Guess-1B", "l9", "vllm", "1.0", "agg", "HYBRID_PASS", "xprofile"),
        ("Acme/Old-1B", "l9", "vllm", "0.9", "agg", "PASS", "silicon"),
        ("Acme/Split-1B", "l9", "vllm", "1.0", "disagg", "PASS", "silicon"),
    ]
    return [dict(zip(columns, row)) for row in good + bad]
""",
    "sdk/perf_database.py": """
def resolve_query_version(system, backend, version):
    assert version == "current"
    return "1.0"
""",
    "sdk/utils.py": """
def get_model_config_from_model_path(model):
    return {"context": 20000 if "Moe" in model else None}
""",
}


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The folder of kept profiles, empty."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data/llmsched_env/profiles"


@pytest.fixture
def missing(monkeypatch):
    """aiconfigurator-core is not installed."""
    monkeypatch.setattr(aiconfigurator, "find_spec", lambda name: None)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The stand-in is installed; a function that sets variables of its modules."""
    folder = tmp_path / "site"
    for name, text in PACKAGE.items():
        path = folder / "aiconfigurator_core" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    about = folder / "aiconfigurator_core-9.9.dist-info/METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: aiconfigurator-core\nVersion: 9.9\n")
    for name in [name for name in sys.modules if name.split(".")[0] == "aiconfigurator_core"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(folder)
    caches = (aiconfigurator._supported, aiconfigurator._current_version)
    for cache in caches:
        cache.cache_clear()
    yield lambda module, **values: [
        monkeypatch.setattr(importlib.import_module(f"aiconfigurator_core.sdk.{module}"), name, value)
        for name, value in values.items()
    ]
    for cache in caches:
        cache.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "aiconfigurator_core"]:
        del sys.modules[name]
