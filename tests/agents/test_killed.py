"""Trainings that are killed at random moments and begun again: nothing is unreadable, and nothing much is lost."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from llmsched_env.policies.weights import load_weights
from llmsched_env.sb3.policy_file import read_description, read_network

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys
from pathlib import Path
from agents import run
from agents.config import Training
from agents.training import train

run.SAVE_EVERY = 0.2
train(Training(**{config!r}), Path({folder!r}), lambda line: print(line, flush=True))
"""
TRAININGS = {
    "ppo": {
        "env": "BatchQueue", "load": (0.5,), "steps": 40 * 512, "num_envs": 8, "horizon": 8.0, "tuning_seeds": 1,
        "trials": 0, "validations": 8, "learner": {"n_steps": 64, "batch_size": 128, "net_arch": (16,)},
    },
    "dqn": {
        "env": "BatchQueue", "algo": "dqn", "load": (0.5,), "steps": 20_000, "num_envs": 8, "horizon": 8.0,
        "tuning_seeds": 1, "trials": 0, "validations": 8,
        "learner": {"learning_starts": 200, "batch_size": 64, "net_arch": (16,)},
    },
    "maskable_ppo": {
        "env": "RequestSelection", "load": (0.5,), "steps": 40 * 512, "num_envs": 8, "horizon": 4.0,
        "tuning_seeds": 1, "trials": 0, "validations": 8, "learner": {"n_steps": 64, "batch_size": 128, "net_arch": 8},
    },
    "es": {
        "env": "BatchQueue", "algo": "es", "load": (0.5,), "horizon": 8.0, "tuning_seeds": 1, "trials": 0,
        "learner": {"generations": 60, "pairs": 8, "validate_every": 6},
    },
    "es and coordinate search": {
        "env": "IndexPolicy", "algo": "es", "workload": "azure-chat", "load": (0.9,), "horizon": 20.0,
        "tuning_seeds": 1, "trials": 0, "learner": {"generations": (3, 3), "sites": 2, "cases": 1, "validate_every": 2},
    },
}  # fmt: skip
KILLS = 10


def begin(name, folder):
    code = CODE.format(config=TRAININGS[name], folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def readable(folder):
    """Every file that a training keeps can be read whole."""
    kept = (path for name in ("best", "last", "first") for path in folder.glob(f"{name}.*"))
    for path in (path for path in kept if path.suffix != ".partial"):
        if path.suffix == ".zip":
            read_network(path)
            assert read_description(path).training
        elif path.name == "last.npz":
            with np.load(path) as file:
                assert all(file[key] is not None for key in file)
        else:
            from llmsched_env.policies.learned_index import PERCEPTRON

            load_weights(path, PERCEPTRON)


def until_it_learns(process):
    """Wait until a training has said where it stands."""
    for line in process.stdout:
        if ": " in line and line.startswith(("steps", "updates")) or line.startswith("Running the references"):
            return


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_survives_being_killed(name, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with begin(name, whole) as process:
        until_it_learns(process)
        started = time.monotonic()
        process.stdout.read()
        seconds = time.monotonic() - started
    assert process.returncode == 0
    rng, hit = np.random.default_rng(list(name.encode())), 0
    for kill in range(KILLS):
        with begin(name, parts) as process:
            if kill % 5 > 0:  # else while it starts
                until_it_learns(process)
            time.sleep(rng.uniform(0.0, 0.18) * seconds)
            hit += process.poll() is None
            process.kill()
        if parts.exists():
            readable(parts)
    assert hit >= KILLS // 2
    with begin(name, parts) as process:
        process.stdout.read()
    assert process.returncode == 0
    readable(parts)
    best = next(iter(whole.glob("best.*"))).name
    assert (parts / best).exists()
    if name.startswith("es"):  # a search ends where one does that was not interrupted
        one, two = (dict(np.load(folder / "last.npz")) for folder in (whole, parts))
        for key in one.keys() - {"seconds"}:
            np.testing.assert_array_equal(one[key], two[key])
    else:
        one, two = (read_description(folder / "last.zip").training["steps"] for folder in (whole, parts))
        assert two >= one * 0.99
