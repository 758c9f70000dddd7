"""Autellix: calls by the service that their task has attained, without knowing any length (arXiv 2502.13965)."""

import numpy as np

from baselines.by_urgency import LIMITS, URGENCY, WORK_CONSERVING, serve_classes
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of, request_memory
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler

PARAMS = {
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
REQUEST = (
    *URGENCY,  # number of its queue
    "forgiven",  # attained service when the call was last promoted
)
params, own = params_of(PARAMS), request_memory(REQUEST)


@compiled
def by_total_service(view):
    """PLAS: by the tokens computed so far for all calls of the task."""
    for i in view.running:
        _join_queue(view, i, view.tasks[view.req.task[i]].served)
    for i in view.waiting:
        _join_queue(view, i, view.tasks[view.req.task[i]].served)
    return serve_classes(view)


@compiled
def by_longest_path(view):
    """ATLAS: by the tokens on the longest finished path of the task, and those of the call itself."""
    for i in view.running:
        _join_queue(view, i, view.tasks[view.req.task[i]].longest_path + view.req.computed[i])
    for i in view.waiting:
        _join_queue(view, i, view.tasks[view.req.task[i]].longest_path + view.req.computed[i])
    return serve_classes(view)


@compiled
def _join_queue(view, i, attained):
    """Put call `i` into the queue of its attained service; one that starves starts again in the first queue."""
    keep, p = own(view), params(view)
    if attained < keep.forgiven[i]:  # it was preempted, and what it had computed is lost
        keep.forgiven[i] = attained
    service = attained - keep.forgiven[i]
    if service >= p.quantum and _time_without_token(view, i) >= p.starvation * service:
        keep.forgiven[i] = attained
        service = 0.0
    queue, edge = 0, p.quantum
    while service >= edge and queue < p.queues - 1:
        queue += 1
        edge *= 2.0
    keep.urgency[i] = queue


@compiled(inline=True)
def _time_without_token(view, i):
    last = view.req.last_token_time[i]
    return view.clock - (view.req.arrival[i] if np.isnan(last) else last)


_REFERENCE = "Autellix, arXiv 2502.13965; edges of queues and the threshold of starvation are ours"

plas = register_scheduler(
    Scheduler(
        "plas",
        by_total_service,
        params=PARAMS,
        memory={"request": REQUEST},
        reference=f"PLAS of {_REFERENCE}",
        **WORK_CONSERVING,
    )
)
atlas = register_scheduler(
    Scheduler(
        "atlas",
        by_longest_path,
        params=PARAMS,
        memory={"request": REQUEST},
        reference=f"ATLAS of {_REFERENCE}",
        **WORK_CONSERVING,
    )
)
