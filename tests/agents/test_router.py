"""Training of the index router, the shipped one, and the comparison with registered ones."""

import re
from dataclasses import replace

import numpy as np
import pytest

from agents import train_router
from agents.problems.router import RouterTraining, first_weights, train
from agents.search.stages import EvolutionSettings
from baselines.routers import ROUTERS, least_outstanding_tokens, round_robin
from llmsched_env.evaluation.benchmark.router_cases import (
    TRAINED,
    Cluster,
    cost,
    costs,
    generation_cases,
    validation_cases,
)
from llmsched_env.evaluation.benchmark.routers import (
    BY_HAND,
    CLUSTERS,
    GROUPS,
    H100,
    L40S,
    RouterComparison,
    compare,
    tables,
)
from llmsched_env.evaluation.cases import TRAINING_SEEDS, TUNING_SEEDS
from llmsched_env.intervals import mean_interval
from llmsched_env.policies import pretrained
from llmsched_env.policies.learned_router import PERCEPTRON, load, with_weights

TINY = Cluster("tiny", "azure-chat", ("llama-3.1-8b_h100-80gb_tp1_aic", "llama-3.1-8b_l40s-48gb_tp1_aic"), 0.9, 30, 1)
SMALL = RouterTraining(EvolutionSettings(3, pairs=2), validate_every=1, validation_rounds=1)


@pytest.fixture
def quick(monkeypatch):
    """Trainings on short runs of one small cluster."""
    for name, first in (("generation_cases", TRAINING_SEEDS), ("validation_cases", TUNING_SEEDS)):
        cases = lambda *arguments, first=first: [(TINY, first + int(arguments[1]))]  # noqa: E731
        monkeypatch.setattr(f"agents.problems.router.{name}", cases)


def test_the_first_router_is_the_reference():
    cases = validation_cases((0.7, 1.05), 1)[:2]
    own, reference = costs([with_weights(first_weights(3)), least_outstanding_tokens], cases)
    np.testing.assert_array_equal(own, reference)


def test_cases_are_of_their_own_seeds_and_the_same_every_time():
    held, drawn = validation_cases((0.7, 1.05), 2), generation_cases(0, 5, (0.7, 1.05))
    assert (held, drawn) == (validation_cases((0.7, 1.05), 2), generation_cases(0, 5, (0.7, 1.05)))
    assert [cluster.workload for cluster, _ in drawn] == list(TRAINED)
    assert all(TUNING_SEEDS <= seed < TUNING_SEEDS + 10_000 for _, seed in held)
    assert all(TRAINING_SEEDS <= seed < TRAINING_SEEDS + 9_000 for _, seed in drawn)
    assert len({generation_cases(s, g, (0.7, 1.05))[0] for s in range(2) for g in range(2)}) == 4


def test_a_call_that_never_finishes_counts_to_the_end():
    finish, arrival = [3.0, np.nan], [1.0, 2.0]
    rows = np.rec.fromarrays([arrival, finish], names="arrival,finish")
    result = type("Result", (), {"requests": rows, "end": 10.0})
    assert cost(result, "mean_e2el") == (2.0 + 8.0) / 2


def test_an_interrupted_training_ends_with_the_same_router(quick, tmp_path):
    lines = []
    weights = train(SMALL, tmp_path / "whole", lines.append)
    assert len(lines) == SMALL.search.generations + 1

    def interrupt(line):
        if line.startswith("generation    2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SMALL, tmp_path / "parts", interrupt)
    later = []
    np.testing.assert_array_equal(train(SMALL, tmp_path / "parts", later.append), weights)
    assert later[0] == "Going on from generation 1." and list(map(found, later[1:])) == list(map(found, lines[2:]))
    assert load(tmp_path / "parts" / "best.npz") == with_weights(weights, "best")
    assert list((tmp_path / "whole" / "tensorboard").iterdir())
    with pytest.raises(ValueError, match="another training in .*: seed must be 0 .* got 7"):
        train(replace(SMALL, seed=7), tmp_path / "parts")


def found(line):
    """What a line of progress says of the router, without the time."""
    return line.split(": ", 1)[1]


def test_targets_can_be_trained_for(quick, tmp_path):
    lines = []
    train(replace(SMALL, search=EvolutionSettings(1), objective="slo_attainment"), tmp_path, lines.append)
    share = float(re.search(r"cost ([\d.]+)", lines[0]).group(1))
    assert 0.0 < share < 1.0


@pytest.mark.parametrize("content", [None, b"nonsense", "short"])
def test_files_that_are_no_routers_are_refused(content, tmp_path):
    path = tmp_path / "best.npz"
    if content == "short":
        np.savez(path, weights=np.zeros(3))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match="no trained router"):
        load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"objective": "speed"},
        {"loads": (0.9, 0.8)},
        {"validation_rounds": 0},
    ],
)
def test_trainings_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}.* must be .* got"):
        RouterTraining(**change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --out FOLDER, to train, or --evaluate NPZ"),
        (["--evaluate", "nowhere.npz"], "no trained router at nowhere.npz"),
        (["--out", "OUT", "--seeds", "0"], "number of seeds must be .* got 0"),
        (["--out", "OUT", "--generations", "0"], "generations must be .* got 0"),
        (["--out", "OUT", "--objective", "speed"], "objective must be .* got 'speed'"),
    ],
)
def test_bad_command_lines_say_what_is_wrong(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        train_router.main([str(tmp_path / "run") if text == "OUT" else text for text in arguments])
    assert re.search(message, capsys.readouterr().err)


def test_what_is_saved_is_the_share_of_the_others_latency():
    values = np.array([[[1.0, 2.0, 3.0]], [[2.0, 2.5, 4.0]], [[4.0, 4.0, 4.0]]])
    comparison = RouterComparison(("own", "close", "far"), (CLUSTERS[0],), values)
    mean, half = comparison.saved_by_first("close", CLUSTERS)
    logs = np.log([2.0, 1.25, 4 / 3])
    assert mean == pytest.approx(1 - np.exp(-logs.mean()))
    assert half == pytest.approx(np.exp(-logs.mean()) * mean_interval(logs)[1])
    assert comparison.best_other(CLUSTERS[0]) == "close"
    assert f"| {CLUSTERS[0].name} | 0.95 | 2.00 | `close` | 2.83 |" in tables(comparison)


def test_every_registered_router_is_compared():
    comparison = compare(with_weights(first_weights(0)), 2, [TINY])
    assert set(ROUTERS) <= set(comparison.names) and BY_HAND.name in comparison.names
    assert comparison.saved_by_first("least_outstanding_tokens", [TINY]) == (0.0, 0.0)
    assert {cluster.workload for cluster in GROUPS["new"]}.isdisjoint(TRAINED)


def test_the_shipped_router_beats_blind_ones_and_its_start():
    router = pretrained.router()
    assert len(router.weights) == PERCEPTRON.size
    assert router == load(pretrained.file_of(pretrained.ROUTER), "pretrained_router")
    mixed = next(cluster for cluster in CLUSTERS if set(cluster.profiles) == {TINY.profiles[0], TINY.profiles[1]})
    assert all(gpu in "".join(mixed.profiles) for gpu in (H100, L40S))
    own, blind, start = costs([router, round_robin, least_outstanding_tokens], [(mixed, TUNING_SEEDS)])[:, 0]
    assert own < 0.7 * blind and own < 0.9 * start


def test_the_card_has_the_commands_that_made_it():
    card = (pretrained.FOLDER / f"{pretrained.ROUTER}.md").read_text(encoding="utf-8")
    assert "llmsched train --pretrained router" in card
    assert "llmsched benchmark --stage routers" in card


@pytest.mark.slow
def test_training_from_scratch_beats_every_registered_router_on_mixed_engines(tmp_path):
    router = with_weights(train(RouterTraining(EvolutionSettings(10)), tmp_path, lambda line: None))
    comparison = compare(router, 3, GROUPS["mixed"][:3])
    for name in ROUTERS:
        assert comparison.saved_by_first(name, comparison.clusters)[0] > 0.03, name
