"""Checkpoints that are spoiled, missing or in use."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agents.run_folder import hold
from llmsched_env.policies.learned_index import PERCEPTRON
from llmsched_env.policies.learned_index import load as load_index
from llmsched_env.policies.weights import save_weights, write_arrays

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


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"not an archive at all" * 9])
def test_files_that_hold_no_weights_are_refused_with_their_name(weights, content):
    whole = weights.read_bytes()
    for spoiled in (content, whole[: len(whole) // 2], whole[:500] + content + whole[500 + len(content) :]):
        weights.write_bytes(spoiled)
        with pytest.raises(ValueError, match=str(weights)):
            load_index(weights)
