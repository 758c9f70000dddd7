"""Training of the network index policy, and the shipped one."""

from dataclasses import replace

import numpy as np
import pytest

from agents.config import Training
from agents.problems.network import tasks_present
from agents.problems.steered_network import SteeredNetwork
from agents.training import train
from llmsched_env.evaluation.benchmark.network_cases import (
    CLASS_PRIORITIES,
    PRIORITIES,
    NetworkSetting,
    mean_tasks,
    numbers,
    run_scheduler,
)
from llmsched_env.evaluation.cases import TEST_SEEDS
from llmsched_env.intervals import paired_interval
from llmsched_env.policies import pretrained
from llmsched_env.policies.learned_network import learned_network, load, with_weights

SMALL = Training(
    env="AgentNetwork", algo="es", horizon=60.0, tuning_seeds=1, seeds=2,
    learner={"generations": 3, "pairs": 2, "runs": 1, "validate_every": 1},
)  # fmt: skip
SHORT = NetworkSetting(horizon=200.0)


@pytest.fixture
def short(monkeypatch):
    """Validation and test on short runs."""
    for module in ("network", "steered_network"):
        monkeypatch.setattr(f"agents.problems.{module}.RUN_SECONDS", 60.0)


def test_costs_are_mean_tasks_of_each_scheduler_on_each_table():
    tables = [SHORT.tasks(seed) for seed in range(2)]
    found = tasks_present({"first": PRIORITIES["entering first"], "second": learned_network}, tables, SHORT.horizon)
    assert [row.shape for row in found.values()] == [(2,), (2,)]
    assert found["first"][1] == mean_tasks(run_scheduler(PRIORITIES["entering first"], SHORT, 1))


def test_the_first_policy_is_that_without_a_network():
    first = SteeredNetwork(replace(SMALL, seed=3)).first_weights()
    one, other = (run_scheduler(s, SHORT, 0) for s in (with_weights(first), learned_network))
    assert one.requests.tobytes() == other.requests.tobytes()


def test_an_interrupted_training_ends_with_the_same_policy(short, tmp_path):
    lines = []
    problem = train(SMALL, tmp_path / "whole", lines.append)

    def interrupt(line):
        if line.startswith("updates         1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SMALL, tmp_path / "parts", interrupt)
    later = []
    train(SMALL, tmp_path / "parts", later.append)
    assert later[0] == "Going on from 1 updates." and list(map(found, later[-2:])) == list(map(found, lines[-2:]))
    one, other = (load(tmp_path / name / problem.best) for name in ("whole", "parts"))
    assert one == other
    with np.load(tmp_path / "parts" / "last.npz") as one, np.load(tmp_path / "whole" / "last.npz") as other:
        assert int(one["generation"]) == 3
        assert all(np.array_equal(one[name], other[name]) for name in other if name != "seconds")
    assert list((tmp_path / "whole" / "tensorboard").iterdir())
    text = problem.report(tmp_path / "whole" / problem.best, tmp_path, "llmsched train")
    assert all(name in text for name in ("agent", *CLASS_PRIORITIES)) and (tmp_path / "report.html").exists()


def found(line):
    """What a line of progress says of the policy, without the time."""
    return line.split(": ", 1)[1]


def test_the_shipped_policy_has_fewer_tasks_than_the_best_priority_and_bounded_peaks():
    setting, shipped = NetworkSetting(), pretrained.load(pretrained.NETWORK)
    for seed in range(2):
        own, reference = (numbers(run_scheduler(s, setting, seed)) for s in (shipped, PRIORITIES["entering first"]))
        assert own["mean_tasks"] < reference["mean_tasks"]
        assert own["peak"] < 60_000


@pytest.mark.parametrize("content", [None, b"nonsense", "short"])
def test_files_that_are_no_policies_are_refused(content, tmp_path):
    path = tmp_path / "best.npz"
    if content == "short":
        np.savez(path, weights=np.zeros(3))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match="no trained network policy"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": "latency"}, "reward must be .* got 'latency'"),
        ({"workload": "azure-chat"}, "workload of AgentNetwork must be .* got 'azure-chat'"),
        ({"load": ("recorded",)}, "load must be .* got 'recorded'"),
        ({"start": "nowhere.npz"}, "nowhere.npz"),
    ],
)
def test_trainings_that_make_no_sense_are_refused(change, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(replace(SMALL, **change), tmp_path)


@pytest.mark.slow
def test_training_from_scratch_beats_every_class_priority(tmp_path):
    config = Training(env="AgentNetwork", algo="es", seeds=8, learner={"generations": 30})
    problem = train(config, tmp_path, lambda line: None)
    tables = [NetworkSetting().tasks(TEST_SEEDS + seed) for seed in range(8)]
    rows = tasks_present({"learned": load(tmp_path / problem.best)} | CLASS_PRIORITIES, tables)
    for name in CLASS_PRIORITIES:
        saved, half_width = paired_interval(rows[name], rows["learned"])
        assert saved > half_width, name
