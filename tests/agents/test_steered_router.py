"""Training of the index router."""

import re
from dataclasses import replace

import numpy as np
import pytest

from agents.config import Training
from agents.problems.steered_router import SteeredRouter
from agents.training import train
from baselines.routers import ROUTERS, least_outstanding_tokens
from llmsched_env.evaluation.benchmark.router_cases import costs, validation_cases
from llmsched_env.evaluation.benchmark.routers import GROUPS, compare
from llmsched_env.policies.learned_router import load, with_weights

ENGINES = ("llama-3.1-8b_h100-80gb_tp1_aic", "llama-3.1-8b_l40s-48gb_tp1_aic")
SMALL = Training(
    env="Cluster", algo="es", workload="azure-chat", engine=ENGINES, load=(0.9,), tuning_seeds=1, seeds=2,
    learner={"generations": 3, "pairs": 2, "runs": 1, "validate_every": 1},
)  # fmt: skip


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Few calls in every run."""
    real = SteeredRouter._cluster
    monkeypatch.setattr(SteeredRouter, "_cluster", lambda self, load: replace(real(self, load), calls=60.0, least=1.0))


def test_the_first_router_is_the_reference():
    cases = validation_cases((0.7, 1.05), 1)[:2]
    first = SteeredRouter(replace(SMALL, seed=3)).first_weights()
    own, reference = costs([with_weights(first), least_outstanding_tokens], cases)
    np.testing.assert_array_equal(own, reference)


def test_an_interrupted_training_ends_with_the_same_router(tmp_path):
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
    one, other = (load(tmp_path / name / problem.best, "same") for name in ("whole", "parts"))
    assert one == other
    assert list((tmp_path / "whole" / "tensorboard").iterdir())
    text = problem.report(tmp_path / "whole" / problem.best, tmp_path, "llmsched train")
    assert all(name in text for name in ("agent", *ROUTERS)) and (tmp_path / "report.html").exists()


def found(line):
    """What a line of progress says of the router, without the time."""
    return line.split(": ", 1)[1]


def test_targets_can_be_trained_for(tmp_path):
    lines = []
    config = replace(SMALL, reward="slo", load=(2.5,), learner=dict(SMALL.learner) | {"generations": 1})
    train(config, tmp_path, lines.append)
    share = float(re.search(r"cost ([\d.]+)", lines[-1]).group(1))
    assert 0.0 < share < 1.0


def test_cases_of_the_suite_are_random_clusters():
    problem = SteeredRouter(Training(env="Cluster", algo="es"))
    assert len({len(cluster.profiles) for g in range(3) for cluster, _ in problem.cases(g)}) > 1
    assert problem.cases(4) == problem.cases(4) != problem.cases(5)


@pytest.mark.parametrize("content", [None, b"nonsense", "short"])
def test_files_that_are_no_routers_are_refused(content, tmp_path):
    path = tmp_path / "best.npz"
    if content == "short":
        np.savez(path, weights=np.zeros(3))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match="no trained router"):
        load(path)


def test_trainings_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match="reward of a router must be .* got 'speed'"):
        train(replace(SMALL, reward="speed"), tmp_path)


@pytest.mark.slow
def test_training_from_scratch_beats_every_registered_router_on_mixed_engines(tmp_path):
    problem = train(Training(env="Cluster", algo="es", learner={"generations": 10}), tmp_path, lambda line: None)
    comparison = compare(load(tmp_path / problem.best), 3, GROUPS["mixed"][:3])
    for name in ROUTERS:
        assert comparison.saved_by_first(name, comparison.clusters)[0] > 0.03, name
