"""Training of the network that steers the index policy, on one small site."""

import numpy as np
import pytest

import agents
import llmsched_env as ls
from agents import index_training
from agents.index_training import IndexTraining, costs, first_weights, load_steered, saved, steered, train
from llmsched_env.evaluation.suite import H100, Site
from llmsched_env.policies.learned import learned_index

SITE = Site("azure-chat", "strict", H100)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(index_training, "TRAINING", (SITE,))
    monkeypatch.setattr(index_training, "_VALIDATION_LOADS", (0.9,))
    return IndexTraining(minutes=0.03, pairs=2, horizon=5.0, validate_every=1)


def test_the_first_policy_is_the_index_policy_at_its_start():
    workload = SITE.at(0.9, 30.0)
    one, other = (ls.simulate(s, workload, SITE.engine) for s in (steered(first_weights(3)), learned_index))
    assert one.requests.tobytes() == other.requests.tobytes()


def test_costs_are_missed_requests_or_seconds():
    case = (SITE, SITE.at(0.9, 20.0), 5)
    result = ls.simulate(learned_index, case[1], SITE.engine, seed=5)
    summary = result.summary()
    assert costs([learned_index], [case], "slo_attainment")[0, 0] == pytest.approx(1 - summary["slo_attainment"])
    assert costs([learned_index], [case], "mean_e2el")[0, 0] == pytest.approx(1e-3 * summary["mean_e2el_ms"])


def test_what_is_saved_is_relative_to_the_reference():
    assert saved(np.array([1.0]), np.array([2.0]), "mean_e2el") == pytest.approx(np.log(2))
    assert saved(np.array([0.0]), np.array([0.003]), "slo_attainment") == pytest.approx(np.log(2))


def test_training_keeps_its_best_and_goes_on_where_it_was(small, tmp_path):
    lines = []
    weights = train(small, tmp_path, lines.append)
    scheduler = load_steered(tmp_path / "best.npz")
    assert scheduler == steered(weights, tmp_path.name) and agents.load_steered is load_steered
    with np.load(tmp_path / "last.npz") as file:
        generation, seconds = int(file["generation"]), float(file["seconds"])
    assert lines and seconds < 60 * small.minutes
    more = IndexTraining(minutes=small.minutes + seconds / 60 + 0.02, pairs=2, horizon=5.0, validate_every=1)
    train(more, tmp_path, lambda line: None)
    with np.load(tmp_path / "last.npz") as file:
        assert int(file["generation"]) > generation and float(file["seconds"]) > seconds
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize("content", [None, b"nonsense", "short"])
def test_files_that_are_no_policies_are_refused(content, tmp_path):
    path = tmp_path / "best.npz"
    if content == "short":
        np.savez(path, weights=np.zeros(3))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match="no trained policy"):
        load_steered(path)


def test_unknown_objectives_are_refused():
    with pytest.raises(ValueError, match="objective"):
        IndexTraining(objective="fairness")
