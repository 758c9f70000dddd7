"""A network of queue features that sets the numbers of the index policy before every batch, all in compiled code."""

from math import tanh

import numpy as np

from llmsched_env.policies import numbers as ix
from llmsched_env.policies.features import NUM_FEATURES, features
from llmsched_env.policies.index import LIMITS, compose_index
from llmsched_env.policies.numbers import NUM_INDEX
from llmsched_env.policies.queue_state import MEMORY, survey
from llmsched_env.policies.recent import NUM_HISTORY, prefill_rate, watch_arrivals
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.primitives import again_if_preempted, decodes, tokens_left
from llmsched_env.simulator.scheduler import Scheduler

HIDDEN = 16
NUM_WEIGHTS = (NUM_FEATURES + 1) * HIDDEN + (HIDDEN + 1) * NUM_INDEX
_FIRST = len(LIMITS)  # weights stand behind the limits
_INPUTS_END = NUM_HISTORY + NUM_FEATURES  # of engine memory
_HIDDEN_END = _INPUTS_END + HIDDEN
# Number k is START + SPREAD * output k of the network, e to the power of it where it is a scale: (start, spread).
_LINEAR = {
    ix.BY_LENGTH: (0.3, 1),
    ix.BY_SLACK: (0, 2),
    ix.BY_URGENCY: (1, 1),
    ix.BY_AGE: (0, 0.5),
    ix.BY_PREDICTION: (0, 1),
    ix.BY_WORK: (0, 1),
    ix.LATE: (15, 6),
    ix.OUTSIDE: (8, 4),
    ix.DECLINE: (2, 4),
    ix.BLOCKING: (0, 0.5),
    ix.BEGUN: (1, 3),
    ix.EXTRA_BY_LOAD: (1, 0.5),
    ix.LATE_SHARE: (0.3, 0.5),
    ix.KEEP: (0, 0.2),
}
_SCALES = {
    ix.CAUTION: (1.0, 0.5),
    ix.MARGIN: (1.0, 0.3),
    ix.STEP_SHARE: (0.97, 0.3),
    ix.PACE_SHARE: (0.1, 2),
    ix.SPEND: (0.2, 2),
    ix.DUE_SHARE: (1.0, 0.3),
    ix.VICTIMS: (1e4, 2),
    ix.LEAST_CHUNK: (64, 1.5),
    ix.MOST_CHUNK: (8192, 1.5),
    ix.EXTRA: (30, 2),
    ix.JOIN: (3, 1.5),
    ix.MOST_ACTIVE: (300, 1),
    ix.SPARE: (0.2, 1),
}
START, SPREAD, EXPONENTIAL = np.zeros(NUM_INDEX), np.zeros(NUM_INDEX), np.zeros(NUM_INDEX)
for _k, (_start, _spread) in _LINEAR.items():
    START[_k], SPREAD[_k] = _start, _spread
for _k, (_start, _spread) in _SCALES.items():
    START[_k], SPREAD[_k], EXPONENTIAL[_k] = np.log(_start), _spread, 1.0


@compiled
def evaluate(weights, inputs, hidden, outputs):
    """A layer of tanh units and a linear one; each row of weights ends with its bias."""
    at = 0
    for h in range(len(hidden)):
        total = weights[at + len(inputs)]
        for j in range(len(inputs)):
            total += weights[at + j] * inputs[j]
        hidden[h] = tanh(total)
        at += len(inputs) + 1
    for k in range(len(outputs)):
        total = weights[at + len(hidden)]
        for h in range(len(hidden)):
            total += weights[at + h] * hidden[h]
        outputs[k] = total
        at += len(hidden) + 1


@compiled
def compose(view):
    """Features of the queue, the network, then the index policy with its outputs."""
    decodes(view, view.running)
    if tokens_left(view) > 0 and len(view.waiting) + len(view.running) > 0:
        memory = view.mem.engine
        history, inputs = memory[:NUM_HISTORY], memory[NUM_HISTORY:_INPUTS_END]
        hidden, numbers = memory[_INPUTS_END:_HIDDEN_END], memory[_HIDDEN_END:]
        watch_arrivals(view, history)
        # of the batch before: without them there is no state for the network to see
        state = survey(view, prefill_rate(history), True, numbers)
        features(view, state, history, inputs)
        evaluate(view.mem.params[_FIRST:], inputs, hidden, numbers)
        for k in range(NUM_INDEX):
            numbers[k] = START[k] + SPREAD[k] * numbers[k]
            if EXPONENTIAL[k] > 0.0:
                numbers[k] = np.exp(min(14.0, numbers[k]))
        compose_index(view, numbers, state, history)
    return again_if_preempted(view)


learned_index = Scheduler(
    "learned_index",
    compose,
    params=LIMITS,
    memory={**MEMORY, "engine": tuple(f"x{k}" for k in range(_HIDDEN_END + NUM_INDEX))},
    needs_lengths="predicted",
    weights=(0.0,) * NUM_WEIGHTS,
    mixes_phases=True,
    chunks_prefill=True,
    reference="ours: the index policy, its numbers set by a network",
)
