"""Index policies whose numbers a trained network sets, as schedulers: from weights, and from files."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from agents.weights import read_weights
from llmsched_env.policies.learned import HIDDEN, NUM_WEIGHTS, SPREAD, START, learned_index
from llmsched_env.policies.numbers import BEGUN, INDEX_PARAMS, NUM_INDEX
from llmsched_env.simulator.scheduler import Scheduler

DECISION_TIME = (50e-6, 0.5e-6)
"""Seconds that a decision is taken to last: per batch, and per request present. It is several times what the compiled
code takes (`benchmarks/decision_time.py`), so that reading a server's queues in Python is paid for as well."""


def steered(weights: np.ndarray, name: str = "learned_index") -> Scheduler:
    """The index policy, its numbers set by the network with these weights; its decisions cost simulated time."""
    return replace(
        learned_index, name=name, weights=tuple(np.asarray(weights, float).tolist()), decision_time=DECISION_TIME
    )


def output_layer(weights: np.ndarray) -> np.ndarray:
    """[NUM_INDEX, HIDDEN + 1]: the part of f8[NUM_WEIGHTS] that sets the numbers, a view; biases stand last."""
    return weights[-NUM_INDEX * (HIDDEN + 1) :].reshape(NUM_INDEX, HIDDEN + 1)


def within_four_knobs(weights: np.ndarray) -> np.ndarray:
    """The same network with prompts that have begun always first, as vLLM serves them.

    Then a scheduler class of vLLM can do what the policy does with four knobs: the token budget of the step, the order
    of the queue, the admission limit, and holding prefill.
    """
    weights = np.array(weights, dtype=float)
    row = output_layer(weights)[BEGUN]
    row[:] = 0.0
    row[-1] = (INDEX_PARAMS["begun"].high - START[BEGUN]) / SPREAD[BEGUN]
    return weights


def keeps_four_knobs(weights: np.ndarray) -> bool:
    """Whether the network never lets a begun prompt wait for others, whatever it sees."""
    return np.array_equal(output_layer(weights)[BEGUN], output_layer(within_four_knobs(weights))[BEGUN])


def load_steered(path: str | Path, name: str | None = None) -> Scheduler:
    """The scheduler that a training has found: its `best.npz`; called after its folder unless there is a `name`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights of this network.
    """
    weights = read_weights(path, NUM_WEIGHTS)
    return steered(weights, name or Path(path).parent.name or "steered")
