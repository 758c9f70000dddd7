"""Training of the network that steers the index policy, on one small site."""

import re
from dataclasses import replace

import numpy as np
import pytest

import agents
import baselines
import llmsched_env as ls
from agents import index_cases, index_training
from agents.index_cases import costs, saved
from agents.index_search_space import Stage, first_weights, searched
from agents.index_training import IndexTraining, train
from agents.random_sites import random_site
from agents.steered import load_steered, output_layer, steered
from llmsched_env.evaluation.suite import H100, Site
from llmsched_env.metrics import within_limits
from llmsched_env.policies import numbers as ix
from llmsched_env.policies.index import index
from llmsched_env.policies.learned import EXPONENTIAL, NUM_WEIGHTS, SPREAD, START, learned_index
from llmsched_env.policies.numbers import INDEX_PARAMS

SITE = Site("azure-chat", "strict", H100)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(index_cases, "TRAINING", (SITE,))
    monkeypatch.setattr(index_cases, "_VALIDATION_LOADS", (0.9,))
    numbers = (ix.BY_LENGTH, ix.STEP_SHARE, ix.MARGIN)
    stages = (
        Stage(2, 0.1, 0.05, 2, 0.99, numbers),
        Stage(2, 0.1, 0.02, 2, 1.0, numbers, (ix.JOIN, ix.EXTRA), ("queue", "prompt")),
    )
    return IndexTraining(
        stages=stages, sites=1, random_sites=1, horizon=5.0, validate_every=1, average=0.5, sweeps=2, cases=1
    )


def test_without_what_depends_on_the_queue_the_first_policy_is_an_index_policy():
    workload, weights = SITE.at(0.9, 30.0), first_weights()
    output_layer(weights)[:, :-1] = 0.0
    numbers = START + SPREAD * output_layer(weights)[:, -1]
    constants = dict(zip(INDEX_PARAMS, np.where(EXPONENTIAL > 0, np.exp(numbers), numbers), strict=True))
    one, other = (
        ls.simulate(s, workload, SITE.engine)
        for s in (replace(steered(weights), decision_time=(0.0, 0.0)), index(token_budget=16384, **constants))
    )
    assert one.requests.tobytes() == other.requests.tobytes()


def test_without_pausing_begun_prompts_come_first_whatever_is_found(small):
    whole = replace(small, pausing=True)
    for config, at_most in ((small, 0), (whole, 1)):
        places = searched(config.stages[0], config.pausing)
        touched = np.zeros(NUM_WEIGHTS)
        touched[places] = 1.0
        assert output_layer(touched)[ix.BEGUN].sum() == at_most
    assert not output_layer(first_weights(pausing=True))[ix.BLOCKING].any()  # a prompt that can wait blocks none
    begun = output_layer(first_weights())[ix.BEGUN]
    assert START[ix.BEGUN] + SPREAD[ix.BEGUN] * begun[-1] == INDEX_PARAMS["begun"].high and not begun[:-1].any()


def test_costs_are_missed_requests_or_seconds():
    case = (SITE, SITE.at(0.9, 20.0), 5)
    result = ls.simulate(learned_index, case[1], SITE.engine, seed=5)
    summary = result.summary()
    assert costs([learned_index], [case], "slo_attainment")[0, 0] == pytest.approx(1 - summary["slo_attainment"])
    assert costs([learned_index], [case], "mean_e2el")[0, 0] == pytest.approx(1e-3 * summary["mean_e2el_ms"])


def test_what_is_saved_is_relative_to_the_reference():
    assert saved(np.array([1.0]), np.array([2.0]), "mean_e2el") == pytest.approx(np.log(2))
    assert saved(np.array([0.0]), np.array([index_cases.FLOOR["slo_attainment"]]), "slo_attainment") == pytest.approx(
        np.log(2)
    )


def test_a_training_that_was_interrupted_goes_on_to_the_same_weights(small, tmp_path):
    weights = train(small, tmp_path / "one", lambda line: None)
    assert load_steered(tmp_path / "one" / "best.npz") == steered(weights, "one")
    assert agents.load_steered is load_steered
    assert list((tmp_path / "one" / "tensorboard").iterdir())

    def until_the_second(line):
        if line.startswith("generation    2"):
            stopped.append(line)
        elif stopped:
            raise AssertionError("it went on")

    def interrupt(cases, *args):
        if stopped:
            raise KeyboardInterrupt
        return original(cases, *args)

    stopped, original = [], index_training.generation_cases
    index_training.generation_cases = interrupt
    try:
        with pytest.raises(KeyboardInterrupt):
            train(small, tmp_path / "two", until_the_second)
    finally:
        index_training.generation_cases = original
    lines = []
    again = train(small, tmp_path / "two", lines.append)
    assert lines[0].startswith("generation    2")
    np.testing.assert_array_equal(again, weights)
    one, two = (np.load(tmp_path / name / "sweeps.npz") for name in ("one", "two"))
    for name in ("weights", "center"):
        np.testing.assert_array_equal(one[name], two[name])
    assert not np.array_equal(one["weights"], first_weights())


def test_the_best_in_validation_is_what_is_kept(small, tmp_path):
    lines = []
    weights = train(small, tmp_path, lines.append)
    gains = [float(re.search(r"saved ([+-][\d.]+)", line)[1]) for line in lines]
    held, _ = index_cases.validation_cases()
    reference, own = costs([baselines.get("slos_serve"), steered(weights)], held, "slo_attainment")
    assert len(gains) > 4
    assert saved(own, reference, "slo_attainment").mean() == pytest.approx(max(gains), abs=1e-4)


def test_a_training_that_is_over_is_left_as_it_is(small, tmp_path):
    weights = train(small, tmp_path, lambda line: None)
    lines, best = [], (tmp_path / "best.npz").read_bytes()
    np.testing.assert_array_equal(train(small, tmp_path, lines.append), weights)
    assert not lines and (tmp_path / "best.npz").read_bytes() == best


def test_random_sites_differ_and_can_be_met():
    rng = np.random.default_rng(3)
    sites = [random_site(rng) for _ in range(12)]
    assert len({site.engine for site in sites}) > 3
    for site in sites:
        table = site.at(0.9).sample(1)
        assert len(table) and np.isfinite(table.ttft_slo).all()
        apart = ls.Workload.from_table(table.rows(0, 40).at(1e4 * np.arange(len(table.rows(0, 40)))), site.name)
        rows = ls.simulate(learned_index, apart, site.engine, record="requests").requests
        assert within_limits(rows, None).mean() > 0.9


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
