"""Policies that are vectors of weights, as schedulers and routers: from weights, and from files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmsched_env.policies import learned, learned_router, network_index
from llmsched_env.policies.numbers import INDEX_PARAMS, NUM_INDEX
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler

DECISION_TIME = (50e-6, 0.5e-6)
"""Simulated seconds that a decision of an index policy takes: per batch, and per request present.

It is several times what the compiled code takes (`benchmarks/decision_time.py`), so that it covers reading a server's
queues in Python.
"""


def index_number(name: str) -> int:
    """Place of a number of the index policy, by its name in `INDEX_PARAMS`."""
    return list(INDEX_PARAMS).index(name)


def index_policy(weights: np.ndarray, name: str = "learned_index") -> Scheduler:
    """The index policy, its numbers set by the network with these weights; its decisions take simulated time."""
    return replace(learned.learned_index, name=name, weights=_floats(weights), decision_time=DECISION_TIME)


def network_policy(weights: np.ndarray, name: str = "learned_network") -> Scheduler:
    """The index policy of networks of engines with these weights."""
    return replace(network_index.learned_network, name=name, weights=_floats(weights))


def router_policy(weights: np.ndarray, name: str = "learned_router") -> Router:
    """The index router with these weights."""
    return replace(learned_router.learned_router, name=name, weights=_floats(weights))


def load_index_policy(path: str | Path, name: str | None = None) -> Scheduler:
    """The index policy that a training has found: its `best.npz`. By default it is named after the file's folder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights of this network.
    """
    weights = read_weights(path, learned.NUM_WEIGHTS)
    return index_policy(weights, name or Path(path).parent.name or "learned_index")


def load_network_policy(path: str | Path, name: str | None = None) -> Scheduler:
    """The policy of networks that a training has found. By default it is named after the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights of this network.
    """
    weights = read_weights(path, network_index.NUM_WEIGHTS, "trained network policy")
    return network_policy(weights, name or Path(path).stem)


def load_router(path: str | Path, name: str | None = None) -> Router:
    """The router that a training has found. By default it is named after the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights of this network.
    """
    weights = read_weights(path, learned_router.NUM_WEIGHTS, "trained router")
    return router_policy(weights, name or Path(path).stem)


def output_layer(weights: np.ndarray) -> np.ndarray:
    """[NUM_INDEX, HIDDEN + 1]: the part of f8[NUM_WEIGHTS] that sets the numbers of the index policy, a view.

    Biases are in the last column.
    """
    return weights[-NUM_INDEX * (learned.HIDDEN + 1) :].reshape(NUM_INDEX, learned.HIDDEN + 1)


def within_four_knobs(weights: np.ndarray) -> np.ndarray:
    """The same network, but prompts that have begun always go first, as in vLLM.

    Then a scheduler class of vLLM can do what the policy does with four knobs: the token budget of the step, the order
    of the queue, the admission limit, and holding prefill.
    """
    weights, begun = np.array(weights, dtype=float), index_number("begun")
    row = output_layer(weights)[begun]
    row[:] = 0.0
    row[-1] = (INDEX_PARAMS["begun"].high - learned.START[begun]) / learned.SPREAD[begun]
    return weights


def keeps_four_knobs(weights: np.ndarray) -> bool:
    """Whether the network never lets a prompt that has begun wait for others, whatever its features."""
    begun = index_number("begun")
    return np.array_equal(output_layer(weights)[begun], output_layer(within_four_knobs(weights))[begun])


def constant_router_weights(changes: Mapping[int, float]) -> np.ndarray:
    """f8[NUM_WEIGHTS]: the terms of the router count as at the start, but for these changes by number of the term."""
    weights = np.zeros(learned_router.NUM_WEIGHTS)
    hidden, features = learned_router.HIDDEN, learned_router.NUM_FEATURES
    output = weights[(features + 1) * hidden :].reshape(learned_router.NUM_TERMS, hidden + 1)
    for term, change in changes.items():
        output[term, hidden] = change / learned_router.SPREAD[term]
    return weights


def random_hidden(seed: int, count: int, hidden: int, features: int) -> np.ndarray:
    """f8[count]: weights of a network whose hidden units are random, and whose output layer is zeros."""
    weights = np.zeros(count)
    units = np.random.default_rng([seed, 1]).normal(0, features**-0.5, (hidden, features + 1))
    weights[: units.size] = units.ravel()
    return weights


def read_weights(path: str | Path, count: int, what: str = "trained policy") -> np.ndarray:
    """f8[count]: the array `weights` of an `.npz` file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it does not hold that many numbers under that name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}")
    try:
        with np.load(path) as file:
            weights: np.ndarray = file["weights"]
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no {what}: {error}") from None
    if weights.shape != (count,):
        raise ValueError(f"{path} is no {what}: weights must be {count} numbers, got {weights.shape}")
    return weights


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays and numbers to an `.npz` file, at once or not at all."""
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.replace(path)


def _floats(weights: np.ndarray) -> tuple[float, ...]:
    return tuple(np.asarray(weights, float).tolist())
