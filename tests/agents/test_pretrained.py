"""The trained policies that come with the project."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import baselines
import llmsched_env as ls
from llmsched_env.evaluation.naming import schedulers_by_name
from llmsched_env.evaluation.suite import A100, H100, Site
from llmsched_env.policies import pretrained
from llmsched_env.results.metrics import within_limits
from llmsched_env.testing import batches_beyond_vllm


@pytest.mark.parametrize("name", [*pretrained.NAMES, pretrained.NETWORK, pretrained.ROUTER])
def test_each_has_weights_and_a_card_that_says_how_it_was_trained(name):
    rule = pretrained.router() if name == pretrained.ROUTER else pretrained.load(name)
    assert any(rule.weights)
    assert (pretrained.FOLDER / f"{name}.npz").stat().st_size < 1e6
    card = (pretrained.FOLDER / f"{name}.md").read_text(encoding="utf-8")
    [command] = re.findall(r"llmsched train (.*(?:\\\n.*)?)", card)
    reward = "latency" if name.startswith("latency") else "slo"
    trained = {"network": "--env AgentNetwork --algo es", "router": "--env Cluster --algo es"}
    assert trained.get(name, f"--env IndexPolicy --algo es --reward {reward}") in command
    assert ("pausing=true" in command) == name.endswith("_pausing")


def test_unknown_ones_are_refused_by_name():
    named = "'slo', 'slo_pausing', 'latency', 'latency_pausing', 'network'"
    with pytest.raises(ValueError, match=named):
        pretrained.load("fairness")


def test_the_command_line_knows_them():
    found = schedulers_by_name(["sarathi", "pretrained"])
    assert list(found) == ["sarathi", *pretrained.NAMES]


@pytest.mark.parametrize(
    ("name", "slo", "profile", "cost"),
    [
        ("slo", "relaxed", A100, lambda summary: 1 - summary["slo_attainment"]),
        ("latency", "default", H100, lambda summary: summary["mean_e2el_ms"]),
    ],
)
def test_each_does_what_it_was_trained_for(name, slo, profile, cost):
    site = Site("azure-chat", slo, profile)
    workload = site.at(1.2, 60.0)
    own, sarathi = (
        cost(ls.simulate(s, workload, site.engine, seed=0).summary())
        for s in (pretrained.load(name), baselines.sarathi)
    )
    assert own < 0.8 * sarathi


@pytest.mark.parametrize("name", ["slo", "latency"])
def test_they_do_what_vllm_can_with_four_knobs(name):
    site = Site("azure-chat", "strict", H100)
    result = ls.simulate(pretrained.load(name), site.at(2.5, 20.0), site.engine, seed=1, record="entries")
    assert not within_limits(result.requests, None).all()  # some are late, which others might overtake
    assert batches_beyond_vllm(result) == 0 and result.drained


def test_those_that_pause_go_beyond():
    site = Site("azure-chat", "strict", H100)
    result = ls.simulate(pretrained.load("slo_pausing"), site.at(1.3, 15.0), site.engine, seed=1, record="entries")
    assert batches_beyond_vllm(result) > 0


def test_their_decisions_take_time():
    assert all(min(pretrained.load(name).decision_time) > 0 for name in pretrained.NAMES)


def test_they_load_without_torch_or_the_trainings():
    loads = "[pretrained.load(name) for name in (*pretrained.NAMES, pretrained.NETWORK)], pretrained.router()"
    unwanted = "{'torch', 'stable_baselines3', 'agents', 'baselines'} & set(sys.modules)"
    code = f"import sys\nfrom llmsched_env.policies import pretrained\n{loads}\nassert not {unwanted}, {unwanted}"
    subprocess.run([sys.executable, "-c", code], cwd=Path(ls.__file__).parents[1], check=True)
