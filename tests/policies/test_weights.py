"""Files of weights: by names of features and numbers, so that changes of the tables leave trained policies alone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import llmsched_env
from llmsched_env.policies import learned_index, learned_network, learned_router, pretrained
from llmsched_env.policies.perceptron import Perceptron
from llmsched_env.policies.weights import load_weights, save_weights

NETWORK = Perceptron(("a", "b"), 3, ("x", "y"))
WEIGHTS = np.arange(1.0, 1.0 + NETWORK.size)


@pytest.fixture
def path(tmp_path):
    save_weights(tmp_path / "best.npz", NETWORK, WEIGHTS, value=0.5)
    return tmp_path / "best.npz"


def test_weights_come_back_with_what_else_was_saved(path):
    np.testing.assert_array_equal(load_weights(path, NETWORK), WEIGHTS)
    with np.load(path) as file:
        assert file["value"] == 0.5 and file["inputs"].tolist() == ["a", "b"]


def test_weights_go_to_the_names_they_belong_to(path):
    other = Perceptron(("b", "new", "a"), 4, ("y", "other", "x"))
    weights = load_weights(path, other)
    old, new = NETWORK.hidden_layer(WEIGHTS), other.hidden_layer(weights)
    np.testing.assert_array_equal(new[:3], np.column_stack([old[:, 1], np.zeros(3), old[:, 0], old[:, 2]]))
    old, out = NETWORK.output_layer(WEIGHTS), other.output_layer(weights)
    np.testing.assert_array_equal(out[[2, 0]][:, [0, 1, 2, 4]], old)
    assert not out[1].any() and not out[:, 3].any() and not new[3].any()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Perceptron(("a",), 3, ("x", "y")), "best.npz has weights of the feature 'b', which does not exist"),
        (Perceptron(("a", "b"), 3, ("y",)), "best.npz has weights of the number 'x', which does not exist"),
        (Perceptron(("a", "b"), 2, ("x", "y")), "best.npz is no trained policy: .* at most 2 hidden units"),
    ],
)
def test_what_no_longer_exists_is_named(path, network, message):
    with pytest.raises(ValueError, match=message):
        load_weights(path, network)


def test_places_are_found_by_name():
    weights = WEIGHTS.copy()
    NETWORK.hidden_layer(weights)[:, NETWORK.input_place("b")] = 0.0
    NETWORK.output_layer(weights)[NETWORK.output_place("y"), -1] = -1.0
    assert (weights != WEIGHTS).sum() == 4
    with pytest.raises(ValueError, match="feature must be one of the known names, got 'c'"):
        NETWORK.input_place("c")


def test_outputs_and_their_inverse():
    scaling, outputs = learned_index.SCALING, np.linspace(-1.0, 1.0, len(learned_index.OUTPUTS))
    for output, number, row in zip(outputs, scaling.numbers(outputs), learned_index.OUTPUTS.values(), strict=True):
        assert row.inverse(number) == pytest.approx(output)


@pytest.mark.parametrize(
    ("name", "network"),
    [*((name, learned_index.PERCEPTRON) for name in pretrained.NAMES)]
    + [(pretrained.NETWORK, learned_network.PERCEPTRON), (pretrained.ROUTER, learned_router.PERCEPTRON)],
)
def test_shipped_files_know_all_features_and_numbers(name, network):
    with np.load(pretrained.file_of(name)) as file:
        assert set(file["inputs"]) == set(network.inputs) and set(file["outputs"]) == set(network.outputs)


RUNS = """
import hashlib, sys
import baselines, llmsched_env as ls
from baselines.routers import round_robin
from llmsched_env.policies import pretrained
from llmsched_env.workloads.rybko_stolyar import RYBKO_STOLYAR_ENGINES

print(ls.__file__)
engine = ls.EngineConfig.for_gpu("llama-3.1-8b_rtx4090-24gb_tp1_lss")
workload = ls.preset("azure-chat", horizon=1.5).with_predictor(ls.LengthPredictor(0.6)).at_load(1.3, engine)
options = dict(seed=1, interpreted=True)
results = [ls.simulate(pretrained.load(name), workload, engine, **options) for name in pretrained.NAMES]
tasks = ls.rybko_stolyar(0.95, 3.0)
network = pretrained.load(pretrained.NETWORK)
results += [ls.simulate_network(network, tasks, RYBKO_STOLYAR_ENGINES, round_robin, horizon=3.0, **options)]
fleet = [engine, ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic")]
results += [ls.simulate_network(baselines.vllm_v1, workload, fleet, pretrained.router(), **options)]
for result in results:
    print(len(result.requests), hashlib.sha256(result.requests.tobytes() + result.batches.tobytes()).hexdigest())
for policy in (pretrained.load("slo"), pretrained.load(pretrained.NETWORK), pretrained.router()):
    print(len(policy.weights))
"""
INSERTED = {  # file: what is inserted before which line
    "index_features.py": {
        '    Feature(\n        "growth",': '    Feature("new", "", None, lambda view, state, recent, queue: 0.7),\n',
    },
    "index_params.py": {'    "late": Param(': '    "new": Param(0.5, 0, 1, "of no use"),\n'},
    "learned_index.py": {'    Output("margin",': '    Output("new", 2.0, 0.5),\n'},
    "learned_network.py": {
        '    Feature("present_next",': '    Feature("new", "", None, lambda view, k, of: 0.7),\n',
        '    Output("prompt",': '    Output("new", 2.0, 0.5),\n',
    },
    "learned_router.py": {
        '    Feature("fullest",': '    Feature("new", "", None, lambda fleet, i, of: 0.7),\n',
        '    Term("calls",': '    Term("new", "", None, lambda fleet, g, i, at: 0.7),\n',
    },
    "arrivals.py": {'    "num_seen",': '    "new",\n'},
    "survey.py": {'    "size",': '    "new",\n'},
}


def printed(folder, caches):
    """What `RUNS` prints with the package in `folder`, but its first line, which says so."""
    environment = os.environ | {"PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(caches)}
    done = subprocess.run(
        [sys.executable, "-c", RUNS], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    where, *lines = done.stdout.splitlines()
    assert Path(where).is_relative_to(folder)
    return lines


def test_rows_inserted_in_every_table_leave_shipped_policies_unchanged(tmp_path):
    root, copy = Path(llmsched_env.__file__).parents[1], tmp_path / "copy"
    for package in ("llmsched_env", "baselines"):
        shutil.copytree(root / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, insertions in INSERTED.items():
        path = copy / "llmsched_env" / "policies" / name
        text = path.read_text(encoding="utf-8")
        for before, new in insertions.items():
            assert len(re.findall(re.escape(before), text)) == 1, (name, before)
            text = text.replace(before, new + before)
        path.write_text(text, encoding="utf-8")
    before, after = printed(root, tmp_path / "caches"), printed(copy, tmp_path / "caches")
    policies = len(pretrained.NAMES) + 2
    assert after[:policies] == before[:policies]
    assert all(int(new) > int(old) for new, old in zip(after[policies:], before[policies:], strict=True))
