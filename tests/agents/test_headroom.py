"""The headroom table: of one engine and of a network, on few and short runs."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete

import baselines
from agents.config import Training
from agents.headroom import COLUMNS, _best_action, headroom, random_policy
from agents.problems import engine as engine_module
from agents.problems import rivals as rivals_module


@pytest.fixture(autouse=True)
def one_rival(monkeypatch):
    for module in (rivals_module, engine_module):
        monkeypatch.setattr(module, "rivals", lambda objective: {"slo_first": baselines.get("slo_first")})


def test_the_row_of_an_engine_has_all_kinds_and_none_beats_the_bound(tmp_path, quiet):
    config = Training(
        reward="slo", workload="sharegpt-chat", load=(0.9,), horizon=10.0, tuning_seeds=1, trials=2, seeds=3
    )
    row = headroom(config, tmp_path, say=quiet)
    assert tuple(row.cells) == COLUMNS
    means = {name: cell.values.mean() for name, cell in row.cells.items()}
    assert all(len(cell.values) == 3 for cell in row.cells.values())
    assert means["bound"] >= max(means.values()) - 1e-12
    assert row.cells["best baseline"].name == "slo_first (tuned)" and row.cells["best policy"].name.startswith("slo")
    again = headroom(config, tmp_path, say=quiet)
    assert all((again.cells[name].values == cell.values).all() for name, cell in row.cells.items())
    record = row.record()
    assert record["random"] == pytest.approx(means["random"]) and record["best baseline half width"] >= 0


def test_the_row_of_a_cluster(tmp_path, quiet):
    config = Training(env="Cluster", horizon=5.0, tuning_seeds=1, seeds=2)
    row = headroom(config, tmp_path, say=quiet)
    assert len(row.cells["neutral"].values) == len(row.cells["bound"].values) == 0
    assert row.cells["best constant"].name in "0123" and row.cells["best policy"].name == "pretrained_router"
    assert row.cells["best baseline"].values.mean() < row.cells["best constant"].values.mean()


def test_searches_have_no_headroom(tmp_path, quiet):
    with pytest.raises(ValueError, match="algo must be a learner with gradients"):
        headroom(Training(env="Cluster", algo="es"), tmp_path, say=quiet)


def test_random_actions_are_of_the_space_and_depend_on_what_is_seen_alone():
    for space in (Box(-1, 1, (3,), np.float32), MultiDiscrete([2, 5]), Discrete(4)):
        act, seen = random_policy(space), np.random.default_rng(0).random((50, 6), np.float32)
        drawn = [act(obs) for obs in seen]
        assert all(space.contains(action) for action in drawn)
        np.testing.assert_array_equal(drawn, [act(obs) for obs in seen])
        assert len({str(action) for action in drawn}) > 1
    masked = random_policy(Discrete(4))
    assert {masked(obs, np.array([0, 1, 0, 1], np.int8)) for obs in seen} == {1, 3}


def test_the_action_of_least_cost_is_found():
    assert _best_action(Discrete(5), lambda action: (action - 3) ** 2, 1) == 3
    levels = _best_action(MultiDiscrete([3, 3]), lambda action: float(((action - [2, 0]) ** 2).sum()), 40)
    assert levels.tolist() == [2, 0]
    box = Box(-1, 1, (2,), np.float32)
    near = _best_action(box, lambda action: float(((action - 0.5) ** 2).sum()), 60)
    assert ((near - 0.5) ** 2).sum() < 0.5
