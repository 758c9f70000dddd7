"""Maximum pressure: serve the class that relieves the network most (Dai and Lin 2005)."""

from baselines.by_urgency import LIMITS, URGENCY, WORK_CONSERVING, serve_classes
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of, request_memory
from llmsched_env.simulator.scheduler import Param, Scheduler

PARAMS = {**LIMITS, "work_weighted": Param(0, 0, 1, "0: queues in calls, 1: in tokens", (0, 1))}
params, own = params_of(PARAMS), request_memory(URGENCY)


@compiled
def compose(view):
    """Classes in order of pressure, the largest first; those with negative pressure fill the batch up."""
    urgency = own(view).urgency
    for i in view.running:
        urgency[i] = -_pressure(view, view.req.klass[i])
    for i in view.waiting:
        urgency[i] = -_pressure(view, view.req.klass[i])
    return serve_classes(view)


@compiled
def _pressure(view, k):
    """mu_k (Z_k - sum_l P_kl Z_l), Z in calls over all engines, or in tokens of work with `work_weighted`."""
    classes = view.classes
    if k >= len(classes):  # an engine outside a network does not keep count of classes
        return 0.0
    difference = _queue(view, k)
    for m in range(len(classes)):
        if view.onward[k, m] > 0.0:
            difference -= view.onward[k, m] * _queue(view, m)
    return difference / max(1.0, classes[k].mean_work)  # mu_k in calls per token of service


@compiled(inline=True)
def _queue(view, k):
    weight = view.classes[k].mean_work if params(view).work_weighted > 0.0 else 1.0
    return weight * view.classes[k].present


max_pressure = register_scheduler(
    Scheduler(
        "max_pressure",
        compose,
        params=PARAMS,
        memory={"request": URGENCY},
        needs_lengths="distribution",
        reference="Dai and Lin, Operations Research 53(2), 2005; at batch granularity, back-filled",
        **WORK_CONSERVING,
    )
)
