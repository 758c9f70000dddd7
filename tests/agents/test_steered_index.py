"""Training of the network that steers the index policy, on one small site."""

import re
from dataclasses import replace

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from agents.config import Training
from agents.problems import index_cases, steered_index
from agents.problems.index_cases import OwnCases, SuiteCases, costs
from agents.problems.index_form import IndexStage, first_weights, searched
from agents.problems.steered_index import SteeredIndex
from agents.training import train
from llmsched_env.evaluation.benchmark.four_knobs import keeps_four_knobs
from llmsched_env.evaluation.benchmark.static_index import static_settings
from llmsched_env.evaluation.cases import TEST_SEEDS, TUNING_SEEDS
from llmsched_env.evaluation.savings import FLOOR, saved
from llmsched_env.evaluation.suite import H100, Site
from llmsched_env.policies.index import index
from llmsched_env.policies.index_params import ALWAYS, INDEX_PARAMS
from llmsched_env.policies.learned_index import PERCEPTRON, SCALING, learned_index, load, with_weights
from llmsched_env.policies.weights import save_weights

SITE = Site("azure-chat", "strict", H100)
BEGUN = PERCEPTRON.output_place("begun")
output_layer = PERCEPTRON.output_layer
UPDATES = 2 + 2 + 2 * 7  # two stages of generations, then two sweeps over the weights of the second


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(index_cases, "TRAINING", (SITE,))
    numbers = ("by_length", "step_share", "margin")
    stages = (
        IndexStage(2, 0.1, 0.05, 2, 0.99, numbers),
        IndexStage(2, 0.1, 0.02, 2, 1.0, numbers, ("join", "extra"), ("queue", "prompt")),
    )
    monkeypatch.setattr(steered_index, "STAGES", dict.fromkeys(("slo_attainment", "mean_e2el"), stages))
    learner = {"generations": (2, 2), "sites": 1, "random_sites": 1, "validate_every": 1, "average": 0.5}
    learner |= {"sweeps": 2, "cases": 1}
    return Training(env="IndexPolicy", algo="es", load=(0.9,), horizon=5.0, tuning_seeds=2, seeds=2, learner=learner)


def test_its_constants_are_those_of_an_index_policy():
    workload, weights = SITE.at(0.9, 30.0), first_weights()
    constants = dict(zip(INDEX_PARAMS, SCALING.numbers(output_layer(weights)[:, -1]), strict=True))
    one, other = (
        ls.simulate(s, workload, SITE.engine)
        for s in (replace(with_weights(weights), decision_time=(0.0, 0.0)), index(token_budget=16384, **constants))
    )
    assert one.requests.tobytes() == other.requests.tobytes()


@pytest.mark.parametrize("pausing", [False, True])
@pytest.mark.parametrize("objective", ["slo_attainment", "mean_e2el"])
def test_the_start_steers_nothing_and_is_a_static_setting(objective, pausing):
    workload, weights = SITE.at(0.9, 30.0), first_weights(objective, pausing)
    assert not output_layer(weights)[:, :-1].any()
    policy = replace(with_weights(weights), decision_time=(0.0, 0.0))
    as_it_comes, setting, other = static_settings(policy, 3)
    assert as_it_comes == index and other.values != setting.values
    one, same, another = (ls.simulate(s, workload, SITE.engine).requests.tobytes() for s in (policy, setting, other))
    assert one == same != another


@pytest.mark.parametrize("pausing", [False, True])
def test_static_settings_keep_to_the_four_knobs_where_the_policy_does(pausing):
    weights = first_weights(pausing=pausing)
    begun = {setting.values.get("begun", ALWAYS) for setting in static_settings(with_weights(weights), 8)}
    assert keeps_four_knobs(weights) != pausing and (begun == {ALWAYS}) != pausing


def test_without_pausing_begun_prompts_come_first_whatever_is_found():
    for pausing, at_most in ((False, 0), (True, 1)):
        stage = IndexStage(2, 0.1, 0.05, 2, 0.99, ("by_length",))
        touched = np.zeros(PERCEPTRON.size)
        touched[searched(stage, pausing)] = 1.0
        assert output_layer(touched)[BEGUN].sum() == at_most
    blocking = output_layer(first_weights(pausing=True))[PERCEPTRON.output_place("blocking")]
    assert not blocking.any()  # a prompt that can wait blocks none
    begun = output_layer(first_weights())[BEGUN]
    assert (
        SCALING.start[BEGUN] + SCALING.spread[BEGUN] * begun[-1] == INDEX_PARAMS["begun"].high and not begun[:-1].any()
    )


def test_costs_are_missed_requests_or_seconds():
    case = (SITE, SITE.at(0.9, 20.0), 5)
    result = ls.simulate(learned_index, case[1], SITE.engine, seed=5)
    summary = result.summary()
    assert costs([learned_index], [case], "slo_attainment")[0, 0] == pytest.approx(1 - summary["slo_attainment"])
    assert costs([learned_index], [case], "mean_e2el")[0, 0] == pytest.approx(1e-3 * summary["mean_e2el_ms"])


def test_what_is_saved_is_relative_to_the_reference():
    assert saved(np.array([1.0]), np.array([2.0]), "mean_e2el") == pytest.approx(np.log(2))
    assert saved(np.array([0.0]), np.array([FLOOR["slo_attainment"]]), "slo_attainment") == pytest.approx(np.log(2))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a training that was not interrupted, by `small`."""
    return tmp_path_factory.mktemp("index") / "one"


@pytest.mark.parametrize("moment", [1, 3, 4, 5, 9, 12, UPDATES])
def test_a_training_that_was_interrupted_goes_on_to_the_same_weights(small, whole, tmp_path, monkeypatch, moment):
    """At an update of either stage, at the first parameter of a sweep, within it, and at the last."""
    problem = train(small, whole, lambda line: None)
    assert list((whole / "tensorboard").iterdir())
    calls, measure = [], SteeredIndex._log_costs

    def interrupting(self, candidates, cases):
        if len(candidates) > 1:  # not the costs of the center, with which a sweep and a resumed one begin
            calls.append(len(candidates))
            if len(calls) == moment:
                raise KeyboardInterrupt
        return measure(self, candidates, cases)

    monkeypatch.setattr("agents.run.SAVE_EVERY", -1.0)  # after every update
    monkeypatch.setattr(SteeredIndex, "_log_costs", interrupting)
    with pytest.raises(KeyboardInterrupt):
        train(small, tmp_path, lambda line: None)
    lines = []
    train(small, tmp_path, lines.append)
    assert lines[0] == f"Going on from {moment - 1} updates." and len(calls) == UPDATES + 1
    one, two = (dict(np.load(folder / "last.npz")) for folder in (whole, tmp_path))
    assert one.keys() == two.keys() and not np.array_equal(one["base"], first_weights())
    for name in one.keys() - {"seconds"}:
        np.testing.assert_array_equal(one[name], two[name])
    assert load(whole / problem.best, "same") == load(tmp_path / problem.best, "same")


def test_the_best_in_validation_is_what_is_kept(small, tmp_path):
    lines = []
    problem = train(small, tmp_path, lines.append)
    gains = [float(re.search(r"saved ([+-][\d.]+)", line)[1]) for line in lines if "saved" in line]
    held = SuiteCases().held(small, TUNING_SEEDS, 2)
    best = load(tmp_path / problem.best)
    reference, own = costs([baselines.get("slos_serve"), best], held, "slo_attainment")
    assert len(gains) > 4
    assert saved(own, reference, "slo_attainment").mean() == pytest.approx(max(gains), abs=1e-4)


def test_a_training_that_is_over_is_left_as_it_is(small, tmp_path):
    train(small, tmp_path, lambda line: None)
    lines, best = [], (tmp_path / "best.npz").read_bytes()
    problem = train(small, tmp_path, lines.append)
    assert lines == [f"The training is over after {UPDATES} updates."]
    assert (tmp_path / "best.npz").read_bytes() == best
    text = problem.report(tmp_path / problem.best, tmp_path, "llmsched train")
    assert all(name in text for name in ("agent", *steered_index.TESTED)) and (tmp_path / "report.html").exists()


def test_a_workload_of_ones_own_is_trained_on(small, tmp_path):
    config = replace(
        small, workload="sharegpt-chat", engine=("llama-3.1-8b_rtx4090-24gb_tp1_lss",), slo=(2.0, 0.1),
        learner=dict(small.learner) | {"generations": (0, 0), "sweeps": 0},
    )  # fmt: skip
    cases = OwnCases(config)
    for first, seeds in ((TUNING_SEEDS, 2), (TEST_SEEDS, 3)):
        held = cases.held(config, first, seeds)
        assert [seed for *_, seed in held] == [first + k for k in range(seeds)]
        assert all(case[1].name == "sharegpt-chat" and case[1].sample(0).ttft_slo[0] == 2.0 for case in held)
    drawn = cases.of_generation(config, SteeredIndex(config)._settings, 3)
    assert len(drawn) == 1 and TUNING_SEEDS - 10_000 <= drawn[0][2] < TUNING_SEEDS
    train(config, tmp_path, lambda line: None)
    assert (tmp_path / "best.npz").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed must be 0 .* got 1"),
        ({"reward": "latency"}, "reward must be 'slo' .* got 'latency'"),
        ({"env_arguments": {"pausing": True}}, "env_arguments.pausing must be None .* got True"),
        ({"horizon": 6.0}, r"horizon must be 5\.0 .* got 6\.0"),
    ],
)
def test_another_training_in_the_folder_is_refused(small, tmp_path, change, message):
    folder = _interrupted_at_once(small, tmp_path)
    with pytest.raises(ValueError, match=f"another training in {re.escape(str(folder))}: {message}.*another folder"):
        train(replace(small, **change), folder, lambda line: None)
    assert not list(folder.glob("*.npz"))


def test_the_same_training_from_other_weights_is_refused(small, tmp_path):
    start, config = tmp_path / "start.npz", replace(small, start=str(tmp_path / "start.npz"))
    save_weights(start, PERCEPTRON, first_weights())
    folder = _interrupted_at_once(config, tmp_path / "run")
    save_weights(start, PERCEPTRON, first_weights() + 0.1)
    with pytest.raises(ValueError, match="another training in .*: first_weights must be"):
        train(config, folder, lambda line: None)


def _interrupted_at_once(config, folder):
    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, folder, interrupt)
    return folder


@pytest.mark.parametrize("content", [None, b"nonsense", "short"])
def test_files_that_are_no_policies_are_refused(content, tmp_path):
    path = tmp_path / "best.npz"
    if content == "short":
        np.savez(path, weights=np.zeros(3))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match="no trained policy"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": "fairness"}, "reward of an index policy must be .* got 'fairness'"),
        ({"env_arguments": {"slots": 3}}, "name in env_arguments must be .* got 'slots'"),
        ({"start": "nowhere.npz"}, "nowhere.npz"),
        ({"start": "scratch"}, "start must be 'tuned', a plain rule, or the file of a policy, got 'scratch'"),
    ],
)
def test_trainings_that_make_no_sense_are_refused(small, change, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(replace(small, **change), tmp_path)
