"""Our vLLM V0 and V1 make the decisions that vLLM's own schedulers made, step by step."""

import json
from pathlib import Path

import pytest

from baselines import vllm_replay

DATA = Path(__file__).resolve().parents[1] / "data/vllm"
NAMES = sorted(path.name.removesuffix(".input.json") for path in DATA.glob("*.input.json"))


def difference(name, **options):
    return vllm_replay.first_difference(DATA / f"{name}.input.json", DATA / f"{name}.trace.jsonl.gz", **options)


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_the_recorded_one(name):
    assert difference(name) is None


@pytest.mark.parametrize("name", ["v1_f061", "v0_v030"])
def test_interpreted_too(name):
    assert difference(name, interpreted=True) is None


def test_recordings_are_as_varied_as_they_should_be():
    configs = [json.loads((DATA / f"{name}.input.json").read_text())["config"] for name in NAMES]
    steps = [step for name in NAMES for step in vllm_replay.recorded_steps(DATA / f"{name}.trace.jsonl.gz")]
    assert {config["engine"] for config in configs} == {"v0", "v1"}
    for setting in ("async_scheduling", "scheduler_reserve_full_isl", "enable_chunked_prefill", "watermark"):
        assert {bool(config.get(setting)) for config in configs if config["engine"] == "v1"} == {True, False}, setting
    for setting in ("long_prefill_token_threshold_adaptive", "max_num_active_seqs", "max_num_scheduled_tokens"):
        assert any(config.get(setting) for config in configs), setting
    assert {config["policy"] for config in configs if "policy" in config} == {"fcfs", "priority"}
    assert sum(step["preempted"] for step in steps) > 100 and len(steps) > 2000
