"""Autellix: calls by the service that their task has attained, without knowing any length (arXiv 2502.13965)."""

import numpy as np

from baselines.in_order import LIMITS, NUM_LIMITS, URGENCY, WORK_CONSERVING, serve_classes
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.rule import Linear, Log, Param
from llmsched_env.simulator.scheduler import Scheduler

QUANTUM, QUEUES, STARVATION = range(NUM_LIMITS, NUM_LIMITS + 3)
FORGIVEN = 1  # column of request memory: attained service when the call was last promoted


@compiled
def by_total_service(view):
    """PLAS: by the tokens computed for all calls of the task so far."""
    for i in view.running:
        _join_queue(view, i, view.tasks[view.req.task[i]].served)
    for i in view.waiting:
        _join_queue(view, i, view.tasks[view.req.task[i]].served)
    return serve_classes(view)


@compiled
def by_longest_path(view):
    """ATLAS: by the tokens on the longest path of the task that has finished, and those of the call itself."""
    for i in view.running:
        _join_queue(view, i, view.tasks[view.req.task[i]].longest_path + view.req.computed[i])
    for i in view.waiting:
        _join_queue(view, i, view.tasks[view.req.task[i]].longest_path + view.req.computed[i])
    return serve_classes(view)


@compiled
def _join_queue(view, i, attained):
    """The queue of call `i`; one that starves starts again in the first."""
    memory, params = view.mem.request, view.mem.params
    if attained < memory[i, FORGIVEN]:  # it was preempted and what it had computed is lost
        memory[i, FORGIVEN] = attained
    service = attained - memory[i, FORGIVEN]
    if service >= params[QUANTUM] and _time_without_token(view, i) >= params[STARVATION] * service:
        memory[i, FORGIVEN] = attained
        service = 0.0
    queue, edge = 0, params[QUANTUM]
    while service >= edge and queue < params[QUEUES] - 1:
        queue += 1
        edge *= 2.0
    memory[i, URGENCY] = queue


@compiled(inline=True)
def _time_without_token(view, i):
    last = view.req.last_token_time[i]
    return view.clock - (view.req.arrival[i] if np.isnan(last) else last)


_PARAMS = {
    **LIMITS,
    "quantum": Param(
        2048, 1, 2**40, "tokens of the first queue; each further one reaches twice as far", Log(64, 16384)
    ),
    "queues": Param(8, 1, 40, "queues", Linear(1, 12, whole=True)),
    "starvation": Param(
        0.01,
        0,
        np.inf,
        "s without a token, for each token attained, after which a call starts again",
        Log(1e-4, 1.0, whole=False),
    ),
}
_MEMORY = {"request": ("urgency", "forgiven")}
_REFERENCE = "Autellix, arXiv 2502.13965; edges of queues and the threshold of starvation are ours"

plas = Scheduler(
    "plas", by_total_service, params=_PARAMS, memory=_MEMORY, reference=f"PLAS of {_REFERENCE}", **WORK_CONSERVING
)
atlas = Scheduler(
    "atlas", by_longest_path, params=_PARAMS, memory=_MEMORY, reference=f"ATLAS of {_REFERENCE}", **WORK_CONSERVING
)
