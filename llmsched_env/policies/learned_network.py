"""The network index policy: calls in order of an index whose numbers a network sets for each class before every batch.

For agent networks: what an engine serves first should depend on what happens at the others. All decodes of a class have
one index; a prompt has that of its class, a term for its length, and one for how long it has waited. The least index
goes first, decodes and prompts of all classes in one order, so that a batch may be split between classes in any way,
and no token of the budget is lost.
"""

from dataclasses import replace
from math import log, log1p
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmsched_env.compiled import compiled
from llmsched_env.features import Feature, names, writer
from llmsched_env.policies.index_params import LIMITS
from llmsched_env.policies.perceptron import Output, Perceptron, evaluate, rescale, scaling
from llmsched_env.policies.weights import load_weights
from llmsched_env.simulator.memory import engine_memory, number_names, number_record, params_of, request_memory
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


class ClassStatistics(NamedTuple):
    """What a pass over the classes gives for one of them. "Next" are the classes that the end of a call releases."""

    onward: float  # calls that the end of one releases
    here: float  # prompt tokens that wait at this engine, of the class
    all_here: float  # and of all classes
    queued_next: float  # prompt tokens of the next classes that wait at all engines, weighted by the calls released
    present: float  # calls of the class at all engines
    present_next: float  # calls of the next classes, weighted likewise
    work: float  # mean tokens of a call
    work_next: float  # mean tokens of what it releases
    decoding: int  # calls that decode here
    batch: float  # tokens of a batch of this engine


FEATURES = (
    Feature(
        "onward",
        "calls that the end of one releases; 0 where tasks leave",
        None,
        lambda view, k, of: min(2.0, of.onward),
    ),
    Feature(
        "here", "prompt tokens of the class that wait here", None, lambda view, k, of: log1p(of.here / of.batch) - 1.0
    ),
    Feature("all_here", "prompt tokens that wait here", None, lambda view, k, of: log1p(of.all_here / of.batch) - 1.0),
    Feature(
        "queued_next",
        "prompt tokens of the next classes that wait at all engines",
        None,
        lambda view, k, of: log1p(of.queued_next / of.batch) - 1.0,
    ),
    Feature("present_next", "calls of the next classes", None, lambda view, k, of: 0.5 * log1p(of.present_next) - 1.0),
    Feature("present", "calls of the class", None, lambda view, k, of: 0.5 * log1p(of.present) - 1.0),
    Feature("decoding", "calls that decode here", None, lambda view, k, of: min(2.0, of.decoding / of.batch)),
    Feature("work", "mean tokens of a call of the class", None, lambda view, k, of: 0.5 * log1p(of.work / of.batch)),
    Feature(
        "work_next", "mean tokens of what it releases", None, lambda view, k, of: 0.5 * log1p(of.work_next / of.batch)
    ),
)
"""Of a class, most within -1 to 1; tokens are in batches of this engine. Arguments: view, class, `ClassStatistics`."""

OUTPUTS = (  # decodes first, then prompts in the order of their numbers
    Output("decode", -1.0, 4.0),  # index of a decode
    Output("prompt", 0.0, 4.0),  # index of a prompt
    Output("by_length", 0.0, 1.0),  # and for each e-fold of prompt tokens left
    Output("by_age", 0.0, 0.5),  # and of seconds of waiting
)
SCALING = scaling(OUTPUTS)
PERCEPTRON = Perceptron(names(FEATURES), 8, tuple(output.name for output in OUTPUTS))

REQUEST_MEMORY = (
    "key",  # its index
    "queued",  # row k is for class k: its prompt tokens left at all engines, as these last told
)
_memory_record = number_record(
    here=CLASSES,  # prompt tokens left here by class
    told=CLASSES,  # what the other engines were told of them
    numbers=(CLASSES, len(OUTPUTS)),
    inputs=len(FEATURES),
    hidden=PERCEPTRON.hidden,
)
_class_record = number_record(*PERCEPTRON.outputs)
_memory, _of_requests = engine_memory(_memory_record), request_memory(REQUEST_MEMORY)
_params = params_of(number_record(*LIMITS, weights=PERCEPTRON.size))
_write = writer(FEATURES, ("view", "k", "of"))


@compiled
def compose(view):
    """Tell the others what waits here, set the numbers of each class, and serve the least index first."""
    classes = min(CLASSES, len(view.classes), len(view.mem.request))
    decoding = _tell(view, classes)
    memory, own = _memory(view), _of_requests(view)
    for k in range(classes):
        _write(view, k, _class_statistics(view, k, classes, decoding), memory.inputs)
        evaluate(_params(view).weights, memory.inputs, memory.hidden, memory.numbers[k])
        rescale(SCALING, memory.numbers[k])
    for i in view.running:
        own.key[i] = _index(view, i, classes)
    for i in view.waiting:
        own.key[i] = _index(view, i, classes)
    _serve(view)
    return again_if_preempted(view)


@compiled
def _serve(view):
    """Call by call; once a waiting one finds no memory, no other is admitted."""
    own = _of_requests(view)
    left, admitting = heap_of_present(view, own.key), True
    while left > 0 and tokens_left(view) > 0 and seats_left(view) > 0:
        i = pop_least(view, own.key, left)
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
    memory, own, decoding = _memory(view), _of_requests(view), 0
    for k in range(classes):
        memory.here[k] = 0.0
    for i in view.running:
        if is_decoding(view, i):
            decoding += 1
        else:
            memory.here[min(view.req.klass[i], classes - 1)] += prefill_left(view, i)
    for i in view.waiting:
        memory.here[min(view.req.klass[i], classes - 1)] += prefill_left(view, i)
    for k in range(classes):
        own.queued[k] += memory.here[k] - memory.told[k]
        memory.told[k] = memory.here[k]
    return decoding


@compiled
def _class_statistics(view, k, classes, decoding):
    rows, memory, own = view.classes, _memory(view), _of_requests(view)
    total, onward, queued, present, work = 0.0, 0.0, 0.0, 0.0, 0.0
    for m in range(classes):
        share = view.onward[k, m]
        total += memory.here[m]
        onward += share
        queued += share * own.queued[m]
        present += share * rows[m].present
        work += share * rows[m].mean_work
    return ClassStatistics(
        onward=onward,
        here=memory.here[k],
        all_here=total,
        queued_next=queued,
        present=rows[k].present,
        present_next=present,
        work=rows[k].mean_work,
        work_next=work,
        decoding=decoding,
        batch=float(view.batch.counts.token_limit),
    )


@compiled(inline=True)
def _index(view, i, classes):
    numbers = _memory(view).numbers[min(view.req.klass[i], classes - 1)].view(_class_record)[0]
    if is_decoding(view, i):
        return numbers.decode
    length = log(float(max(1, prefill_left(view, i))))
    age = log1p(view.clock - view.req.arrival[i])
    return numbers.prompt + numbers.by_length * length + numbers.by_age * age


learned_network = Scheduler(
    "learned_network",
    compose,
    params=LIMITS,
    memory={"request": REQUEST_MEMORY, "engine": number_names(_memory_record), "heap": ("order",)},
    needs_lengths="distribution",
    weights=(0.0,) * PERCEPTRON.size,
    work_conserving=True,
    mixes_phases=True,
    chunks_prefill=True,
    reference="ours: an index for calls of a network of engines, set for each class by a network of weights",
)


def with_weights(weights: np.ndarray, name: str = "learned_network") -> Scheduler:
    """The network index policy with these weights."""
    return replace(learned_network, name=name, weights=tuple(np.asarray(weights, float).tolist()))


def load(path: str | Path) -> Scheduler:
    """The scheduler that a training has found; it is named like the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights of this network.
    """
    return with_weights(load_weights(path, PERCEPTRON, "trained network policy"), Path(path).stem)
