"""Critical path: calls in order of the work that is left on the longest path of their task."""

from baselines.in_order import LIMITS, NUM_LIMITS, URGENCY, WORK_CONSERVING, serve_each
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.rule import Param
from llmsched_env.simulator.scheduler import Scheduler

LEAST_FIRST = NUM_LIMITS


@compiled
def compose(view):
    """Longest path from the call to the end of its task first, or shortest first; the call itself counts in full."""
    sign = 1.0 if view.mem.params[LEAST_FIRST] > 0.0 else -1.0
    for i in view.running:
        view.mem.request[i, URGENCY] = sign * view.req.path_left[i]
    for i in view.waiting:
        view.mem.request[i, URGENCY] = sign * view.req.path_left[i]
    return serve_each(view)


critical_path = Scheduler(
    "critical_path",
    compose,
    params={
        **LIMITS,
        "least_first": Param(0, 0, 1, "0: longest first, for one task; 1: shortest first, for many", (0, 1)),
    },
    memory={"request": ("urgency",), "heap": ("order",)},
    needs_lengths="predicted",
    reference="critical-path list scheduling: Graham 1969; shortest remaining first for mean completion time",
    **WORK_CONSERVING,
)
