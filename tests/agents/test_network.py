"""Training of the network index policy, the shipped one, and the comparison with rules."""

import re
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest

from agents import train_network
from agents.problems.network import NetworkTraining, costs, first_weights, train
from agents.search.stages import EvolutionSettings
from llmsched_env.evaluation.benchmark.network_cases import (
    CLASS_PRIORITIES,
    PRIORITIES,
    NetworkSetting,
    compare,
    fewer_tasks,
    mean_tasks,
    numbers,
    priority,
    run_scheduler,
    table,
    verdict,
)
from llmsched_env.policies import pretrained
from llmsched_env.policies.learned_network import learned_network, load, with_weights

SMALL = NetworkTraining(
    EvolutionSettings(3, pairs=2), runs=1, horizon=60.0, validate_every=1, validation_runs=1, validation_horizon=60.0
)
SHORT = NetworkSetting(horizon=200.0)


def test_tasks_present_are_those_that_have_arrived_and_not_left():
    result = run_scheduler(PRIORITIES["entering first"], SHORT, 0)
    arrival, finish = result.tasks.arrival, result.tasks.finish
    steps = np.unique([0.0, *arrival, *finish[~np.isnan(finish)], result.end])
    present = [((arrival <= t) & ~(finish <= t)).sum() for t in steps[:-1]]
    assert mean_tasks(result) == pytest.approx(np.dot(present, np.diff(steps)) / result.end)
    assert numbers(result)["mean_tasks"] == mean_tasks(result)


def test_all_class_priorities_are_there():
    """Engine 0 serves classes 0 and 3, engine 1 classes 1 and 2; each favours one of its two or none: 9 ways."""
    ranks = [tuple(s.values[f"rank_{k}"] for k in range(4)) for s in CLASS_PRIORITIES.values()]
    assert {(np.sign(a - d), np.sign(b - c)) for a, b, c, d in ranks} == set(product((-1, 0, 1), repeat=2))
    assert len(ranks) == 9


def test_the_verdict_is_by_the_interval_of_the_growth():
    judged = {(0.2, 0.21): "unstable", (0.0, 0.001): "stable", (-0.5, 0.5): "undecided"}
    for growths, expected in judged.items():
        assert verdict([{"growth": growth} for growth in growths]) == expected


def test_growth_is_the_share_of_the_offered_tokens_that_piles_up():
    unserved = NetworkSetting(load=3.0, horizon=300.0)  # each engine can do a third
    growth = numbers(run_scheduler(PRIORITIES["entering first"], unserved, 0))["growth"]
    assert growth == pytest.approx(2 / 3, abs=0.15)


def test_savings_are_paired_differences_in_the_table():
    schedulers = {name: PRIORITIES[name] for name in ("leaving first", "entering first")}
    rows = compare("other", partial(run_scheduler, priority((0, 2))), SHORT, range(3), schedulers)
    assert fewer_tasks(rows, "other", "entering first") == (0.0, 0.0)
    more = [a["mean_tasks"] - b["mean_tasks"] for a, b in zip(rows["leaving first"], rows["other"], strict=True)]
    assert fewer_tasks(rows, "other", "leaving first")[0] == pytest.approx(np.mean(more)) != 0.0
    header, own, *others = table(rows).splitlines()
    assert header.endswith("saved by other") and "±" not in own and all("±" in line for line in others)


def test_costs_are_mean_tasks_of_each_scheduler_on_each_table():
    tables = [SHORT.tasks(seed) for seed in range(2)]
    found = costs([PRIORITIES["entering first"], learned_network], tables, SHORT.horizon)
    assert found.shape == (2, 2)
    assert found[0, 1] == mean_tasks(run_scheduler(PRIORITIES["entering first"], SHORT, 1))


def test_the_first_policy_is_that_without_a_network():
    one, other = (run_scheduler(s, SHORT, 0) for s in (with_weights(first_weights(3)), learned_network))
    assert one.requests.tobytes() == other.requests.tobytes()


def test_an_interrupted_training_ends_with_the_same_policy(tmp_path):
    lines = []
    weights = train(SMALL, tmp_path / "whole", lines.append)
    assert len(lines) == SMALL.search.generations + 1

    def interrupt(line):
        if line.startswith("generation    2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SMALL, tmp_path / "parts", interrupt)
    later = []
    again = train(SMALL, tmp_path / "parts", later.append)
    np.testing.assert_array_equal(again, weights)
    assert later[0] == "Going on from generation 1." and list(map(found, later[1:])) == list(map(found, lines[2:]))
    assert load(tmp_path / "parts" / "best.npz") == with_weights(weights, "best")
    with np.load(tmp_path / "parts" / "last.npz") as one, np.load(tmp_path / "whole" / "last.npz") as other:
        assert int(one["generation"]) == SMALL.search.generations
        assert all(np.array_equal(one[name], other[name]) for name in other if name != "seconds")
    assert list((tmp_path / "whole" / "tensorboard").iterdir())


def found(line):
    """What a line of progress says of the policy, without the time."""
    return line.split(": ", 1)[1]


def test_another_training_in_the_folder_is_refused(tmp_path):
    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SMALL, tmp_path, interrupt)
    for change, message in ({"seed": 7}, "seed must be 0 .* got 7"), ({"runs": 2}, "runs must be 1 .* got 2"):
        with pytest.raises(ValueError, match=f"another training in .*: {message}"):
            train(replace(SMALL, **change), tmp_path, interrupt)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--evaluate", "nowhere.npz"], "no trained network policy at nowhere.npz"),
        (["--runs", "0"], "runs must be an integer >= 1, got 0"),
        (["--load", "-1"], "load must be .* got -1"),
        (["--algo", "es", "--generations", "0"], "generations must be"),
    ],
)
def test_bad_command_lines_say_what_is_wrong(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        train_network.main([*arguments, "--out", str(tmp_path / "run")])
    assert re.search(message, capsys.readouterr().err)


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
    "change",
    [
        {"validate_every": 0},
        {"seed": -1},
        {"loads": (0.0, 1.0)},
        {"loads": (0.9, 0.8)},
        {"horizon": 0.0},
        {"validation_load": float("nan")},
    ],
)
def test_trainings_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}.* must be .* got"):
        NetworkTraining(**change)


@pytest.mark.parametrize("name", ["load", "interval", "training_horizon", "horizon"])
def test_settings_that_make_no_sense_are_refused(name):
    with pytest.raises(ValueError, match=f"^{name} must be a finite number > 0.* got 0"):
        NetworkSetting(**{name: 0.0})


@pytest.mark.slow
def test_training_from_scratch_beats_every_class_priority(tmp_path):
    scheduler = with_weights(train(NetworkTraining(EvolutionSettings(30)), tmp_path, lambda line: None))
    rows = compare("learned", partial(run_scheduler, scheduler), NetworkSetting(), range(8), CLASS_PRIORITIES)
    for name in CLASS_PRIORITIES:
        saved, half_width = fewer_tasks(rows, "learned", name)
        assert saved > half_width, name
