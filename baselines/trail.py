"""TRAIL: shortest predicted remaining output first, where requests are preempted only while they are young."""

from baselines.in_order import LIMITS, NUM_LIMITS, URGENCY, WORK_CONSERVING, serve_members
from baselines.lengths import UNKNOWN, output_left
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.rule import Linear, Param
from llmsched_env.simulator.scheduler import Scheduler

YOUTH = NUM_LIMITS
AHEAD = 2.0 * UNKNOWN  # what a request past its youth is ahead of all others


@compiled
def compose(view):
    """Least predicted output left first; from its C-th part on a running request goes before all that may be preempted.

    Those that are too old to be preempted lose memory only to one another. TRAIL predicts again after every token, from
    the model's own layers. A prediction here is made once: what is left is the prediction less the tokens generated,
    and at least one. Requests without a prediction stand behind all others and may always be preempted.
    """
    for i in view.running:
        known = view.req.known_output[i]
        ahead = AHEAD if view.req.generated[i] >= view.mem.params[YOUTH] * known else 0.0
        view.mem.request[i, URGENCY] = output_left(view, i, known) - ahead
    for i in view.waiting:
        view.mem.request[i, URGENCY] = output_left(view, i, view.req.known_output[i])
    return serve_members(view, True)


trail = Scheduler(
    "trail",
    compose,
    params={
        **LIMITS,
        "youth": Param(0.8, 0, 1, "share C of its prediction after which a request is not preempted", Linear(0, 1)),
    },
    memory={"request": ("urgency",), "heap": ("order",)},
    needs_lengths="predicted",
    reference="TRAIL, arXiv 2410.01035",
    **WORK_CONSERVING,
)
