"""The network index policy: calls in order of an index whose numbers a network sets for each class before every batch.

For agent networks: what an engine serves first should depend on what happens at the others. All decodes of a class have
one index; a prompt has that of its class, a term for its length, and one for how long it waits. The least index goes
first, decodes and prompts of all classes in one order, so that a batch may be split between classes in any way, and
no token of the budget is lost.
"""

from math import log, log1p

import numpy as np

from llmsched_env.policies.index import LIMITS
from llmsched_env.policies.learned import evaluate
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.ordering import heap_of_present, pop_least
from llmsched_env.simulator.primitives import (
    ALL,
    again_if_preempted,
    chunk,
    decodes,
    is_decoding,
    prefill_left,
    seats_left,
    tokens_left,
)
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import RUNNING, WAITING

CLASSES = 8  # further ones count as the last
DECODE, PROMPT, BY_LENGTH, BY_AGE, NUM_OUTPUTS = range(5)
START = np.array([-1.0, 0.0, 0.0, 0.0])  # decodes first, then prompts in the order of their numbers
SPREAD = np.array([4.0, 4.0, 1.0, 0.5])  # number m of a class is START + SPREAD * output m of the network
NUM_FEATURES, HIDDEN = 9, 8
NUM_WEIGHTS = (NUM_FEATURES + 1) * HIDDEN + (HIDDEN + 1) * NUM_OUTPUTS

_FIRST = len(LIMITS)  # weights stand behind the limits
KEY = 0  # column of request memory
QUEUED = 1  # another, of which row k is for class k: its prompt tokens left at all engines, as these last told
# Cells of engine memory: prompt tokens left here by class, what the others were told of them, numbers by class, and
# the layers of the network.
_TOLD = CLASSES
_NUMBERS = _TOLD + CLASSES
_INPUTS = _NUMBERS + CLASSES * NUM_OUTPUTS
_UNITS = _INPUTS + NUM_FEATURES
_CELLS = _UNITS + HIDDEN


@compiled
def compose(view):
    """Tell the others what waits here, set the numbers of each class, and serve the least index first."""
    classes = min(CLASSES, len(view.classes), len(view.mem.request))
    decoding = _tell(view, classes)
    cells = view.mem.engine
    inputs, hidden = cells[_INPUTS:_UNITS], cells[_UNITS:_CELLS]
    for k in range(classes):
        numbers = cells[_place(k) : _place(k + 1)]
        features(view, k, classes, decoding, inputs)
        evaluate(view.mem.params[_FIRST:], inputs, hidden, numbers)
        for m in range(NUM_OUTPUTS):
            numbers[m] = START[m] + SPREAD[m] * numbers[m]
    for i in view.running:
        view.mem.request[i, KEY] = _index(view, i, classes)
    for i in view.waiting:
        view.mem.request[i, KEY] = _index(view, i, classes)
    _serve(view)
    return again_if_preempted(view)


@compiled
def _serve(view):
    """Call by call; once a waiting one finds no memory, no other is admitted."""
    left, admitting = heap_of_present(view, view.mem.request[:, KEY]), True
    while left > 0 and tokens_left(view) > 0 and seats_left(view) > 0:
        i = pop_least(view, view.mem.request[:, KEY], left)
        left -= 1
        if view.req.phase[i] == WAITING:
            admitting = admitting and chunk(view, i, ALL) > 0
        elif is_decoding(view, i):
            view.mem.heap[left] = i  # a place that the heap has just given up
            decodes(view, view.mem.heap[left : left + 1])
        elif view.req.phase[i] == RUNNING:
            chunk(view, i, ALL)


@compiled
def _tell(view, classes):
    """Count the prompt tokens left here by class, and bring the sums over all engines up to date.

    Returns how many calls decode here.
    """
    here, told, decoding = view.mem.engine[:_TOLD], view.mem.engine[_TOLD:_NUMBERS], 0
    for k in range(classes):
        here[k] = 0.0
    for i in view.running:
        if is_decoding(view, i):
            decoding += 1
        else:
            here[min(view.req.klass[i], classes - 1)] += prefill_left(view, i)
    for i in view.waiting:
        here[min(view.req.klass[i], classes - 1)] += prefill_left(view, i)
    for k in range(classes):
        view.mem.request[k, QUEUED] += here[k] - told[k]
        told[k] = here[k]
    return decoding


@compiled
def features(view, k, classes, decoding, x):
    """Write f8[NUM_FEATURES] of class `k`, most within -1 to 1, to `x`; tokens are in batches of this engine."""
    rows, here, batch = view.classes, view.mem.engine, float(view.batch.counts.token_limit)
    total, onward, queued, present, work = 0.0, 0.0, 0.0, 0.0, 0.0
    for m in range(classes):
        share = view.onward[k, m]
        total += here[m]
        onward += share
        queued += share * view.mem.request[m, QUEUED]
        present += share * rows[m].present
        work += share * rows[m].mean_work
    x[0] = min(2.0, onward)  # calls that the end of one releases: 0 where tasks leave
    x[1] = log1p(here[k] / batch) - 1.0  # what waits here of the class,
    x[2] = log1p(total / batch) - 1.0  # of all,
    x[3] = log1p(queued / batch) - 1.0  # and at all engines of the classes that come next
    x[4] = 0.5 * log1p(present) - 1.0  # calls of these classes at engines
    x[5] = 0.5 * log1p(rows[k].present) - 1.0  # and of the class itself
    x[6] = min(2.0, decoding / batch)
    x[7] = 0.5 * log1p(rows[k].mean_work / batch)  # tokens of a call of the class
    x[8] = 0.5 * log1p(work / batch)  # and of what it releases


@compiled(inline=True)
def _place(k):
    """Where the numbers of class `k` begin."""
    return _NUMBERS + k * NUM_OUTPUTS


@compiled(inline=True)
def _index(view, i, classes):
    cells, at = view.mem.engine, _place(min(view.req.klass[i], classes - 1))
    if is_decoding(view, i):
        return cells[at + DECODE]
    length = log(float(max(1, prefill_left(view, i))))
    age = log1p(view.clock - view.req.arrival[i])
    return cells[at + PROMPT] + cells[at + BY_LENGTH] * length + cells[at + BY_AGE] * age


learned_network = Scheduler(
    "learned_network",
    compose,
    params=LIMITS,
    memory={
        "request": ("key", "queued"),
        "engine": tuple(f"x{k}" for k in range(_CELLS)),
        "heap": ("order",),
    },
    needs_lengths="distribution",
    weights=(0.0,) * NUM_WEIGHTS,
    work_conserving=True,
    mixes_phases=True,
    chunks_prefill=True,
    reference="ours: an index for calls of a network of engines, set for each class by a network of weights",
)
