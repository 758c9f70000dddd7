"""QoServe (Niyama): deadlines and work left in one priority, chunks as long as the slack, hopeless ones put aside."""

from math import inf, isnan, sqrt

from baselines.in_order import LIMITS, NUM_LIMITS
from baselines.slo.parts import (
    BEHIND,
    KEY,
    first_token_due,
    next_token_due,
    prefill_seconds,
    prompts_by_key,
    smallest_slack,
)
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import pop
from llmsched_env.simulator.ordering import heap_of_prompts
from llmsched_env.simulator.primitives import again_if_preempted, decodes, is_pending, prefill_left
from llmsched_env.simulator.rule import Linear, Log, Param
from llmsched_env.simulator.scheduler import Scheduler

ALPHA, DEVIATIONS, MIN_CHUNK, PACED = range(NUM_LIMITS, NUM_LIMITS + 4)
RELEGATED, AHEAD = 1, 2  # columns of request memory: put aside for good; due before another one in this step's check
CLASSES = 8
FINISHED, MEAN, SQUARES = range(3)  # engine memory, three of a class: outputs seen, their mean, squared deviations


@compiled
def compose(view):
    """Decodes, then prompts by priority as long as every decoding request stays inside its slack.

    The priority of a request is its deadline plus alpha times the work left: its prefill, and if it has no TPOT target
    the tokens that requests of its class have generated so far, as mean + k standard deviations. Requests without a
    TTFT target are due after all others, those longest here first. Up to `min_chunk` prefill tokens may exceed the
    slack, so that prompts never starve.

    A request that would miss its deadline behind those due before it is relegated: it is served when nothing else is
    left. If one of them is less important (`priority`), the least important goes in its place. Relegation is for good;
    relegated requests are served in order of importance.
    """
    params = view.mem.params
    _learn(view)
    decodes(view, view.running)
    _relegate(view)
    prompts_by_key(view, smallest_slack(view, params[PACED]), int(params[MIN_CHUNK]), 0.0)
    return again_if_preempted(view)


@compiled
def _learn(view):
    """Welford's update of each class's history by the requests that have just left."""
    for i in view.finished:
        history = view.mem.engine[3 * min(view.req.klass[i], CLASSES - 1) :]
        if view.req.generated[i] > 0:
            history[FINISHED] += 1.0
            deviation = view.req.generated[i] - history[MEAN]
            history[MEAN] += deviation / history[FINISHED]
            history[SQUARES] += deviation * (view.req.generated[i] - history[MEAN])


@compiled
def expected_output(view, i):
    """Output tokens that request `i` is taken to generate; 0 until one of its class has left."""
    history = view.mem.engine[3 * min(view.req.klass[i], CLASSES - 1) :]
    if history[FINISHED] == 0.0:
        return 0.0
    return history[MEAN] + view.mem.params[DEVIATIONS] * sqrt(history[SQUARES] / history[FINISHED])


@compiled
def _relegate(view):
    """Write the key of every prompt, and put those aside that would make others, or themselves, miss."""
    memory = view.mem.request
    for i in view.running:
        if is_pending(view, i):
            _set_key(view, i)
    for i in view.waiting:
        _set_key(view, i)
    left, busy = heap_of_prompts(view, view.mem.request[:, KEY]), 0.0
    while left > 0:
        i = pop(view.mem.heap, left, memory[:, KEY])
        left -= 1
        if memory[i, RELEGATED] > 0.0 or memory[i, KEY] >= BEHIND:
            break
        busy += prefill_seconds(view, i)
        memory[i, AHEAD] = 1.0
        if isnan(view.req.first_token[i]) and view.clock + busy > first_token_due(view, i):
            victim = _least_important(view, i)
            memory[victim, RELEGATED] = 1.0
            memory[victim, AHEAD] = 0.0
            busy -= prefill_seconds(view, victim)
            _set_key(view, victim)


@compiled
def _set_key(view, i):
    req, memory = view.req, view.mem.request
    work, due = float(prefill_left(view, i)), next_token_due(view, i, 1)
    if req.tpot_slo[i] == inf:
        work += max(0.0, expected_output(view, i) - req.generated[i])
    key = (due if due < inf else BEHIND + req.arrival[i]) + view.mem.params[ALPHA] * work
    if memory[i, RELEGATED] > 0.0:
        key += BEHIND * (2.0 + 0.01 * min(max(req.priority[i], -50), 50))
    memory[i, KEY] = key
    memory[i, AHEAD] = 0.0


@compiled
def _least_important(view, i):
    """The least important of the prompts due before request `i`, `i` itself if none is less important than it."""
    victim = i
    for j in view.running:
        if (
            view.mem.request[j, AHEAD] > 0.0
            and is_pending(view, j)
            and view.req.priority[j] > view.req.priority[victim]
        ):
            victim = j
    for j in view.waiting:
        if view.mem.request[j, AHEAD] > 0.0 and view.req.priority[j] > view.req.priority[victim]:
            victim = j
    return victim


qoserve = Scheduler(
    "qoserve",
    compose,
    params={
        **LIMITS,
        "token_budget": Param(4096, 1, 16384, "tokens", Log(64, 8192)),
        "alpha": Param(0.008, 0, 1, "s for each token of work left", Log(1e-5, 0.1, whole=False)),
        "deviations": Param(1, 0, 4, "standard deviations above the mean output", Linear(0, 3)),
        "min_chunk": Param(128, 1, 16384, "prefill tokens that a step may take whatever the slack", Log(1, 2048)),
        "paced": Param(0, 0, 1, "deadlines of tokens from 0: the TTFT target, 1: the first token", (0, 1)),
    },
    memory={
        "request": ("key", "relegated", "ahead"),
        "engine": tuple(f"{what}_{k}" for k in range(CLASSES) for what in ("finished", "mean", "squares")),
        "heap": ("prompts",),
    },
    mixes_phases=True,
    chunks_prefill=True,
    reference="Niyama, arXiv 2503.22562, later QoServe; the order of the relegated is ours",
)
