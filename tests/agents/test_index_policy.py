"""Training of the network that steers the index policy, on one small site."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from agents import index_training
from agents.problems import index_cases
from agents.problems import index_policy as index_problem
from agents.problems.index_cases import costs, saved
from agents.problems.index_policy import IndexTraining, train
from agents.problems.index_start import IndexStage, first_weights, searched
from llmsched_env.evaluation.benchmark.four_knobs import keeps_four_knobs
from llmsched_env.evaluation.benchmark.static_index import static_settings
from llmsched_env.evaluation.random_sites import random_site
from llmsched_env.evaluation.suite import H100, Site
from llmsched_env.policies.index import index
from llmsched_env.policies.index_params import ALWAYS, INDEX_PARAMS
from llmsched_env.policies.learned_index import PERCEPTRON, SCALING, learned_index, load, with_weights
from llmsched_env.policies.weights import save_weights
from llmsched_env.results.metrics import within_limits

SITE = Site("azure-chat", "strict", H100)
BEGUN = PERCEPTRON.output_place("begun")
output_layer = PERCEPTRON.output_layer


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(index_cases, "TRAINING", (SITE,))
    monkeypatch.setattr(index_cases, "_VALIDATION_LOADS", (0.9,))
    numbers = ("by_length", "step_share", "margin")
    stages = (
        IndexStage(2, 0.1, 0.05, 2, 0.99, numbers),
        IndexStage(2, 0.1, 0.02, 2, 1.0, numbers, ("join", "extra"), ("queue", "prompt")),
    )
    return IndexTraining(
        stages=stages, sites=1, random_sites=1, horizon=5.0, validate_every=1, average=0.5, sweeps=2, cases=1
    )


def test_without_what_depends_on_the_queue_the_first_policy_is_an_index_policy():
    workload, weights = SITE.at(0.9, 30.0), first_weights()
    output_layer(weights)[:, :-1] = 0.0
    constants = dict(zip(INDEX_PARAMS, SCALING.numbers(output_layer(weights)[:, -1]), strict=True))
    one, other = (
        ls.simulate(s, workload, SITE.engine)
        for s in (replace(with_weights(weights), decision_time=(0.0, 0.0)), index(token_budget=16384, **constants))
    )
    assert one.requests.tobytes() == other.requests.tobytes()


@pytest.mark.parametrize("pausing", [False, True])
@pytest.mark.parametrize("objective", ["slo_attainment", "mean_e2el"])
def test_a_plain_start_steers_nothing_and_is_a_static_setting(objective, pausing):
    workload, weights = SITE.at(0.9, 30.0), first_weights(objective, pausing, plain=True)
    assert not output_layer(weights)[:, :-1].any() and output_layer(first_weights(objective, pausing))[:, :-1].any()
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


def test_without_pausing_begun_prompts_come_first_whatever_is_found(small):
    whole = replace(small, pausing=True)
    for config, at_most in ((small, 0), (whole, 1)):
        places = searched(config.stages[0], config.pausing)
        touched = np.zeros(PERCEPTRON.size)
        touched[places] = 1.0
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
    assert saved(np.array([0.0]), np.array([index_cases.FLOOR["slo_attainment"]]), "slo_attainment") == pytest.approx(
        np.log(2)
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a training that was not interrupted, by `small`."""
    return tmp_path_factory.mktemp("index") / "one"


@pytest.mark.parametrize("moment", range(1, 7))
def test_a_training_that_was_interrupted_goes_on_to_the_same_weights(small, whole, tmp_path, monkeypatch, moment):
    weights = train(small, whole, lambda line: None)
    assert load(whole / "best.npz") == with_weights(weights, "one")
    assert list((whole / "tensorboard").iterdir())
    calls = []

    def interrupting(cases):
        def draw(*args):
            calls.append(args)
            if len(calls) == moment:
                raise KeyboardInterrupt
            return cases(*args)

        return draw

    for name in ("generation_cases", "sweep_cases"):  # four generations, then two sweeps
        monkeypatch.setattr(index_problem, name, interrupting(getattr(index_problem, name)))
    with pytest.raises(KeyboardInterrupt):
        train(small, tmp_path, lambda line: None)
    lines = []
    again = train(small, tmp_path, lines.append)
    assert lines[0] == f"Going on from generation {moment - 1}." and len(lines) == 1 + 7 - moment
    np.testing.assert_array_equal(again, weights)
    one, two = (dict(np.load(folder / "last.npz")) for folder in (whole, tmp_path))
    assert one.keys() == two.keys() and not np.array_equal(one["base"], first_weights())
    for name in one.keys() - {"seconds"}:
        np.testing.assert_array_equal(one[name], two[name])


def test_the_best_in_validation_is_what_is_kept(small, tmp_path):
    lines = []
    weights = train(small, tmp_path, lines.append)
    gains = [float(re.search(r"saved ([+-][\d.]+)", line)[1]) for line in lines]
    held, _ = index_cases.validation_cases()
    reference, own = costs([baselines.get("slos_serve"), with_weights(weights)], held, "slo_attainment")
    assert len(gains) > 4
    assert saved(own, reference, "slo_attainment").mean() == pytest.approx(max(gains), abs=1e-4)


def test_a_training_that_is_over_is_left_as_it_is(small, tmp_path):
    weights = train(small, tmp_path, lambda line: None)
    lines, best = [], (tmp_path / "best.npz").read_bytes()
    np.testing.assert_array_equal(train(small, tmp_path, lines.append), weights)
    assert not lines and (tmp_path / "best.npz").read_bytes() == best


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed must be 0 .* got 1"),
        ({"objective": "mean_e2el"}, "objective must be 'slo_attainment' .* got 'mean_e2el'"),
        ({"pausing": True}, "pausing must be False .* got True"),
        ({"horizon": 6.0}, r"horizon must be 5\.0 .* got 6\.0"),
        ({"stages": (IndexStage(1, 0.1, 0.05, 2, 0.99, ("by_length",)),)}, r"stages must be .* got"),
    ],
)
def test_another_training_in_the_folder_is_refused(small, tmp_path, change, message):
    folder = _interrupted_at_once(small, tmp_path)
    with pytest.raises(ValueError, match=f"another training in {re.escape(str(folder))}: {message}.*another folder"):
        train(replace(small, **change), folder, lambda line: None)
    assert not list(folder.glob("*.npz"))


def test_the_same_training_from_other_weights_is_refused(small, tmp_path):
    start, config = tmp_path / "start.npz", replace(small, start=tmp_path / "start.npz")
    save_weights(start, PERCEPTRON, first_weights())
    folder = _interrupted_at_once(config, tmp_path / "run")
    save_weights(start, PERCEPTRON, first_weights() + 0.1)
    with pytest.raises(ValueError, match="another training in .*: first_weights must be"):
        train(config, folder, lambda line: None)


def test_a_training_of_which_nothing_says_what_it_was_is_refused(small, tmp_path):
    np.savez(tmp_path / "best.npz", weights=first_weights(), saved=9.0)
    with pytest.raises(ValueError, match=r"without config\.json.*another folder"):
        train(small, tmp_path, lambda line: None)


def _interrupted_at_once(config, folder):
    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, folder, interrupt)
    return folder


def test_the_command_says_what_is_wrong_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    for arguments, message in ((["--seed", "-1"], "seed must be"), (["--start", "nowhere.npz"], "nowhere.npz")):
        with pytest.raises(SystemExit, match="2"):
            index_training.main([*arguments, "--out", str(tmp_path)])
        assert message in capsys.readouterr().err

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(index_problem, "train", interrupt)
    with pytest.raises(SystemExit, match="the same command goes on"):
        index_training.main(["--out", str(tmp_path)])


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
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "fairness"}, "objective must be"),
        ({"plain": True, "start": Path("best.npz")}, "plain=True, start='best.npz'; .* one or the other"),
        ({"stages": ()}, "number of stages must be .* got 0"),
        ({"seed": -1}, "seed must be .* got -1"),
        ({"sites": 1.5}, "sites must be .* got 1.5"),
        ({"sites": 0, "random_sites": 0}, r"sites \+ random_sites must be .* got 0"),
        ({"sweeps": -1}, "sweeps must be .* got -1"),
        ({"cases": 0}, "cases must be .* got 0"),
        ({"validate_every": 0}, "validate_every must be .* got 0"),
        ({"loads": (1.0, 0.5)}, "loads.* must be .* got 0.5"),
        ({"horizon": 0.0}, "horizon must be .* got 0"),
        ({"average": 1.5}, "average must be .* got 1.5"),
    ],
)
def test_trainings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        IndexTraining(**change)
