"""PPO in networks of engines: tiny trainings, and two in which the best that a constant can do is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3.common.save_util import load_from_zip_file

from agents.config import Training
from agents.problems.network import play
from agents.training import open_problem, train
from baselines.routers import ROUTERS
from llmsched_env.evaluation.benchmark.network_cases import PRIORITIES
from llmsched_env.sb3.policy_file import read_network

SMALL = Training(
    env="AgentNetwork", steps=48, num_envs=2, seed=3, horizon=60.0, interval=10.0, tuning_seeds=1, seeds=2,
    validations=1, learner={"n_steps": 12},
)  # fmt: skip
FAST, SLOW = "llama-3.1-8b_h100-80gb_tp1_aic", "llama-3.1-8b_rtx4090-24gb_tp1_lss"
CLUSTER = Training(
    env="Cluster-v0", engine=(SLOW, FAST), load=(0.4,), train_load=(0.4, 0.4), horizon=20.0, seed=0, tuning_seeds=6,
    trials=0, seeds=6, start="scratch",
)  # fmt: skip


@pytest.fixture
def short(monkeypatch):
    """Validation and test on short runs."""
    monkeypatch.setattr("agents.problems.network.RUN_SECONDS", 60.0)


def weights(folder):
    return load_from_zip_file(folder / "last.zip", device="cpu")[1]["policy"]


def test_a_seed_gives_the_same_model_again_and_all_rules_are_in_the_report(short, tmp_path, quiet):
    problem = train(SMALL, tmp_path / "one", quiet)
    train(SMALL, tmp_path / "two", quiet)
    for name, tensor in weights(tmp_path / "one").items():
        assert torch.equal(tensor, weights(tmp_path / "two")[name])
    text = problem.report(tmp_path / "one" / problem.best, tmp_path, "llmsched train")
    assert all(name in text for name in ("agent", *PRIORITIES)) and (tmp_path / "report.html").exists()


def test_an_interrupted_training_goes_on(short, tmp_path, quiet):
    train(replace(SMALL, steps=24), tmp_path, quiet)
    said = []
    train(SMALL, tmp_path, said.append)
    assert said[0] == "Going on from 24 steps."


def test_policies_and_rules_serve_the_same_calls():
    problem = open_problem(replace(CLUSTER, horizon=5.0, seeds=1))
    tasks = problem.tasks([7])
    always = play(problem.single_env(tasks[0]), lambda obs: 1)
    assert always.drained and (always.requests.engine == 1).all()
    np.testing.assert_array_equal(np.sort(always.requests.arrival), np.sort(tasks[0].arrival))
    rules = problem.rules(tasks)
    assert list(rules) == list(ROUTERS) and problem.values(lambda obs: 1, tasks)[0] < rules["round_robin"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": "latency"}, "reward must be .*'latency'"),
        ({"env_arguments": {"levles": 3}}, "levles"),
        ({"train_load": (0.8, 0.9)}, "train_load must be one load, given twice, for AgentNetwork"),
        ({"load": ("recorded",)}, "load must be .* got 'recorded'"),
    ],
)
def test_what_cannot_be_trained_is_refused(change, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        train(replace(SMALL, **change), tmp_path)


@pytest.mark.slow
def test_training_from_scratch_ends_with_a_bounded_backlog(tmp_path, quiet):
    """At load 0.9 up to t = 4500 on test seeds: fewer tasks than half of those under the unstable priority."""
    problem = train(Training(env="AgentNetwork"), tmp_path, quiet)
    tasks = problem.tasks(range(30_000, 30_003))
    own, rules = problem.values(read_network(tmp_path / "best.zip"), tasks), problem.rules(tasks)
    assert (own < 0.5 * rules["leaving first"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_to_send_all_calls_to_the_fast_engine(tmp_path, quiet, seed):
    """At 0.4 of both, 0.47 of the fast one, the slow one (six times as slow) only makes calls wait for themselves."""
    problem = train(replace(CLUSTER, steps=40_000, seed=seed), tmp_path, quiet)
    tasks = problem.tasks(range(30_000, 30_006))
    learned = problem.values(read_network(tmp_path / "best.zip"), tasks).mean()
    slow, fast = (problem.values(lambda obs, engine=engine: engine, tasks).mean() for engine in (0, 1))
    assert fast < 0.8 * min(slow, problem.rules(tasks)["random"].mean())  # the best constant is known
    assert learned < 1.03 * fast


@pytest.mark.slow
def test_it_learns_which_router_is_best(tmp_path, quiet):
    arms = ("random", "round_robin", "least_outstanding_tokens")
    config = replace(
        CLUSTER, train_load=(0.8, 0.8), load=(0.8,), steps=16_000, interval=1.0, env_arguments={"routers": arms}
    )
    problem = train(config, tmp_path, quiet)
    tasks = problem.tasks(range(30_000, 30_006))
    learned = problem.values(read_network(tmp_path / "best.zip"), tasks).mean()
    constants = [problem.values(lambda obs, arm=arm: arm, tasks).mean() for arm in range(len(arms))]
    assert min(constants) < 0.8 * np.median(constants)
    assert learned < 1.03 * min(constants)
