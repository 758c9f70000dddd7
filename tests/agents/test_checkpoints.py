"""Checkpoints that are spoiled, missing or in use."""

import json
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from agents.problem import Validation
from agents.run import Learner
from agents.run_folder import hold
from agents.training_budget import TrainingBudget
from llmsched_env.files import read_object
from llmsched_env.policies.learned_index import PERCEPTRON
from llmsched_env.policies.learned_index import load as load_index
from llmsched_env.policies.weights import save_weights, write_arrays
from llmsched_env.sb3.policy_file import read_description, read_network

ROOT = Path(__file__).resolve().parents[2]
HOLDS = """
import sys
from pathlib import Path
from agents.run_folder import hold
hold(Path(sys.argv[1]))
print("holds", flush=True)
sys.stdin.read()
"""


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "holds\n"
        with pytest.raises(ValueError, match=rf"another training runs in .* \(process {other.pid}\)"):
            hold(tmp_path)
        assert other.stdin is not None
        other.stdin.close()
        other.wait()
    hold(tmp_path)
    hold(tmp_path)  # this process may go on with its own


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "best.npz"
    save_weights(path, PERCEPTRON, np.linspace(-1, 1, PERCEPTRON.size))
    load_index(path)
    return path


@pytest.mark.parametrize("spoil", ["nan", "inf", "shape", "text", "missing", "names"])
def test_spoiled_weights_are_refused_with_the_name_of_the_file(weights, spoil):
    with np.load(weights) as file:
        arrays = dict(file)
    if spoil in ("nan", "inf"):
        arrays["hidden_weights"][1, 2] = float(spoil)
    elif spoil == "shape":
        arrays["output_weights"] = arrays["output_weights"][:, :3]
    elif spoil == "text":
        arrays["hidden_bias"] = np.full(len(arrays["hidden_bias"]), "x")
    elif spoil == "missing":
        del arrays["output_bias"]
    else:
        arrays["inputs"][1] = arrays["inputs"][0]
    write_arrays(weights, **arrays)
    with pytest.raises(ValueError, match=str(weights)):
        load_index(weights)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"not an archive at all" * 9], ids=["empty", "zip", "numpy", "text"]
)
def test_files_that_hold_no_weights_are_refused_with_their_name(weights, content):
    whole = weights.read_bytes()
    for spoiled in (content, whole[: len(whole) // 2], content + whole[len(content) + 1 :]):
        weights.write_bytes(spoiled)
        with pytest.raises(ValueError, match=str(weights)):
            load_index(weights)


@pytest.mark.parametrize("description", ["[" * 100_000, '{"format": ' + "9" * 6000 + "}", "{}", "[]", "nan", "\0"])
def test_a_policy_with_a_strange_description_is_refused_with_the_name_of_the_file(tmp_path, description):
    path = tmp_path / "policy.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("policy.json", description)
    with pytest.raises(ValueError, match=f"{path} is no trained policy"):
        read_description(path)
    (tmp_path / "deep.json").write_text(description)
    if description not in ("{}",):
        with pytest.raises(ValueError, match=r"deep\.json"):
            read_object(tmp_path / "deep.json")


@pytest.mark.parametrize("spoil", ["nan", "shape", "deep", "layers"])
def test_a_policy_with_spoiled_weights_is_refused_with_the_name_of_the_file(tmp_path, spoil):
    head = {"activation": "tanh", "squashed": False, "layers": 1, "kind": "Discrete", "n": 2}
    weight, bias = np.ones((2, 3), np.float32), np.zeros(2, np.float32)
    if spoil == "nan":
        weight[0, 0] = np.nan
    elif spoil == "shape":
        weight = np.ones((4, 3), np.float32)
    elif spoil == "layers":
        head["layers"] = 10**30
    content = BytesIO()
    np.savez(content, head="[" * 100_000 if spoil == "deep" else json.dumps(head), **{"0_w": weight, "0_b": bias})
    path = tmp_path / "policy.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("policy.npz", content.getvalue())
    with pytest.raises(ValueError, match=f"{path} is no trained policy"):
        read_network(path)


class Interrupted(Learner):
    """Validates once, and writes what its checkpoints say; `at` is the step at which Ctrl-C comes."""

    save_when_interrupted = True
    step = 0
    over = False

    def __init__(self, folder, at):
        found = Validation(1.0, {}, "found")
        problem = SimpleNamespace(validate=lambda policy: found, references=dict, complete=True)
        super().__init__(problem, folder, TrainingBudget(10, None, 0.0), lambda text: self.reach("say"))
        self.at = at
        self._lines = SimpleNamespace(draw=lambda *_: self.reach("draw"))

    def reach(self, place):
        if place == self.at:
            raise KeyboardInterrupt

    def due(self):
        return True

    def update(self):
        self.reach("update")

    def policy(self):
        return None

    def log(self, numbers):
        self.reach("log")

    def save_best(self, found):
        self.reach("before best")
        (self.folder / "best").write_text(str(found.value))
        self.reach("after best")

    def save(self):
        (self.folder / "last").write_text(str(self.best))


@pytest.mark.parametrize("at", ["say", "log", "draw", "before best", "after best"])
def test_a_last_checkpoint_never_refers_to_a_best_one_that_is_not_there(tmp_path, at):
    learner = Interrupted(tmp_path, at)
    with pytest.raises(KeyboardInterrupt):
        learner._validate()
    learner.save()  # as `train` does when it is interrupted
    assert (tmp_path / "last").read_text() == "None" or (tmp_path / "best").exists()
