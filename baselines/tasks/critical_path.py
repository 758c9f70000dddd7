"""Critical path: calls in order of the work that is left on the longest path of their task."""

from baselines.by_urgency import LIMITS, URGENCY, WORK_CONSERVING, serve_each
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of, request_memory
from llmsched_env.simulator.scheduler import Param, Scheduler

PARAMS = {
    **LIMITS,
    "least_first": Param(0, 0, 1, "0: longest first, for one task; 1: shortest first, for many", (0, 1)),
}
params, own = params_of(PARAMS), request_memory(URGENCY)


@compiled
def compose(view):
    """Longest path from the call to the end of its task first, or shortest first; the call itself counts in full."""
    urgency, sign = own(view).urgency, 1.0 if params(view).least_first > 0.0 else -1.0
    for i in view.running:
        urgency[i] = sign * view.req.path_left[i]
    for i in view.waiting:
        urgency[i] = sign * view.req.path_left[i]
    return serve_each(view)


critical_path = register_scheduler(
    Scheduler(
        "critical_path",
        compose,
        params=PARAMS,
        memory={"request": URGENCY, "heap": ("order",)},
        needs_lengths="predicted",
        reference="critical-path list scheduling: Graham 1969; shortest remaining first for mean completion time",
        **WORK_CONSERVING,
    )
)
