"""A network of queue features that sets the numbers of the index policy before every batch, all in compiled code."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from llmsched_env.compiled import compiled
from llmsched_env.features import names
from llmsched_env.policies.arrivals import RECENT, prefill_rate, watch_arrivals
from llmsched_env.policies.index import compose_index
from llmsched_env.policies.index_features import FEATURES, write_features
from llmsched_env.policies.index_params import INDEX_PARAMS, LIMITS, numbers_of
from llmsched_env.policies.perceptron import Output, Perceptron, evaluate, rescale, scaling
from llmsched_env.policies.survey import MEMORY, survey
from llmsched_env.policies.weights import load_weights
from llmsched_env.simulator.memory import engine_memory, number_names, number_record, params_of
from llmsched_env.simulator.primitives import again_if_preempted, decodes, tokens_left
from llmsched_env.simulator.scheduler import Scheduler

DECISION_TIME = (50e-6, 0.5e-6)
"""Seconds charged for a decision: per batch, and per request present. It is several times what the compiled code takes
(`benchmarks/decision_time.py`), so that it also covers reading a server's queues in Python."""

_OUTPUTS = (
    Output("by_length", 0.3),
    Output("by_slack", 0, 2),
    Output("by_urgency", 1),
    Output("by_age", 0, 0.5),
    Output("by_prediction", 0),
    Output("by_memory", 0),
    Output("by_work", 0),
    Output("late", 15, 6),
    Output("outside", 8, 4),
    Output("decline", 2, 4),
    Output("blocking", 0, 0.5),
    Output("begun", 1, 3),
    Output("caution", 1, 0.5, exponential=True),
    Output("margin", 1, 0.3, exponential=True),
    Output("step_share", 0.97, 0.3, exponential=True),
    Output("pace_share", 0.1, 2, exponential=True),
    Output("spend", 0.2, 2, exponential=True),
    Output("due_share", 1, 0.3, exponential=True),
    Output("victims", 1e4, 2, exponential=True),
    Output("least_chunk", 64, 1.5, exponential=True),
    Output("most_chunk", 8192, 1.5, exponential=True),
    Output("extra", 30, 2, exponential=True),
    Output("extra_by_load", 1, 0.5),
    Output("join", 3, 1.5, exponential=True),
    Output("most_active", 300, exponential=True),
    Output("late_share", 0.3, 0.5),
    Output("spare", 0.2, exponential=True),
    Output("keep", 0, 0.2),
)
_BY_NAME = {output.name: output for output in _OUTPUTS}
OUTPUTS = {name: _BY_NAME[name] for name in INDEX_PARAMS}
"""Where each number of the index policy starts, and how an output moves it, in the order of `INDEX_PARAMS`."""
SCALING = scaling(tuple(OUTPUTS.values()))

PERCEPTRON = Perceptron(names(FEATURES), 16, tuple(OUTPUTS))

_memory_record = number_record(
    history=RECENT,
    inputs=len(PERCEPTRON.inputs),
    hidden=PERCEPTRON.hidden,
    numbers=len(PERCEPTRON.outputs),  # as of the batch before, until the network has been evaluated
)
_memory = engine_memory(_memory_record)
_params = params_of(number_record(*LIMITS, weights=PERCEPTRON.size))


@compiled
def compose(view):
    """Features of the queue, the network, then the index policy with its outputs."""
    decodes(view, view.running)
    if tokens_left(view) > 0 and len(view.waiting) + len(view.running) > 0:
        memory = _memory(view)
        numbers = numbers_of(memory.numbers)
        watch_arrivals(view, memory.history)
        # with the numbers of the batch before: without them there is no state for the network to see
        state = survey(view, prefill_rate(memory.history), True, numbers)
        write_features(view, state, memory.history, memory.inputs)
        evaluate(_params(view).weights, memory.inputs, memory.hidden, memory.numbers)
        rescale(SCALING, memory.numbers)
        compose_index(view, numbers, state, memory.history)
    return again_if_preempted(view)


learned_index = Scheduler(
    "learned_index",
    compose,
    params=LIMITS,
    memory={**MEMORY, "engine": number_names(_memory_record)},
    needs_lengths="predicted",
    weights=(0.0,) * PERCEPTRON.size,
    mixes_phases=True,
    chunks_prefill=True,
    reference="ours: the index policy, its numbers set by a network",
)


def with_weights(weights: np.ndarray, name: str = "learned_index") -> Scheduler:
    """The index policy, its numbers set by the network with these weights; its decisions cost simulated time."""
    return replace(
        learned_index, name=name, weights=tuple(np.asarray(weights, float).tolist()), decision_time=DECISION_TIME
    )


def load(path: str | Path, name: str | None = None) -> Scheduler:
    """The scheduler that a training has found, from its `best.npz`; `name` is that of its folder if None.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights of this network.
    """
    return with_weights(load_weights(path, PERCEPTRON), name or Path(path).parent.name or "learned_index")
