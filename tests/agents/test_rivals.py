"""The baselines of a training: which there are, tuned at each load, kept, and tuned by another process."""

import json
import time
from dataclasses import replace

import pytest

import baselines
from agents.config import Training
from agents.problems import rivals as module
from agents.problems.background import LOG, Background
from agents.problems.judge import Judge
from agents.problems.rivals import PUBLISHED, RivalTuning, defaults, rivals
from agents.run_folder import keep_config
from agents.training import open_problem
from llmsched_env.evaluation.cases import Cases
from llmsched_env.objectives import OBJECTIVES

LOADS = (0.7, 1.1)


def test_every_scheduler_with_targets_is_a_rival_for_attainment_and_none_is_told_true_lengths():
    slo, latency = rivals("slo_attainment"), rivals("mean_e2el")
    known = {"slo_first", "edf", "least_slack", "qoserve", "slai", "slos_serve", "sola", "fair_batching", "vllm_v1"}
    assert known <= slo.keys() and not known & latency.keys() - {"vllm_v1"}
    assert {"srpt_predicted", "fastserve"} <= latency.keys()
    assert all(rule.needs_lengths != "true" for rule in (*slo.values(), *latency.values()))
    assert [name.removesuffix(" (defaults)") for name in defaults()] == [*PUBLISHED, "vllm_v1"]


@pytest.fixture
def tuning(small, monkeypatch):
    """Of two rivals on the toy engine."""
    monkeypatch.setattr(module, "rivals", lambda objective: {n: baselines.get(n) for n in ("edf", "vllm_v1")})
    return RivalTuning(
        small["workload"], LOADS, small["engine"], OBJECTIVES["slo_attainment"], (20_000, 20_001, 20_002), 6
    )


def test_a_rival_is_at_each_load_at_least_as_good_as_with_defaults(tuning):
    for name, found in tuning.all().items():
        assert tuple(found.by_load) == LOADS
        for load, rule in found.by_load.items():
            cases = Cases((tuning.workload.at_load(load, tuning.engine),), tuning.seeds, tuning.engine)
            tuned, default = Judge.on(cases, tuning.objective).values([rule, baselines.get(name)])
            assert tuned >= default
        assert "best of 6 settings at each load" in found.note


def test_what_was_tuned_is_not_tuned_again(tuning, tmp_path):
    said = []
    first = replace(tuning, folder=tmp_path).all(said.append)
    assert len(said) == 2
    again = replace(tuning, folder=tmp_path).all(said.append)
    assert len(said) == 2 and again == first
    replace(tuning, folder=tmp_path, seeds=(20_003,)).all(said.append)
    assert len(said) == 4


TINY = Training(
    reward="slo", workload="azure-chat", load=(0.5,), steps=64, horizon=3.0, tuning_seeds=1, trials=1, seeds=2
)


def test_another_process_prepares_the_opponents(tmp_path):
    keep_config(tmp_path, TINY)
    process = Background(tmp_path, tmp_path)
    deadline = time.monotonic() + 600
    while not process.done and process._process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert process.done, (tmp_path / LOG).read_text()
    problem = open_problem(TINY, (said := []).append)
    problem.workplace = tmp_path
    assert problem.complete and {"edf (tuned)", "static_best", "neutral"} <= problem.references().keys()
    assert said == []  # all was read


def test_the_process_ends_when_it_is_stopped(tmp_path):
    keep_config(tmp_path, TINY)
    process = Background(tmp_path, tmp_path)
    process.stop()
    assert not process.done and process._process.poll() is not None
    assert json.loads((tmp_path / "config.json").read_text())["training"]["trials"] == 1
