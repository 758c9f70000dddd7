"""TRAIL: shortest predicted remaining output first; requests are preempted only while they are young."""

from baselines.by_urgency import LIMITS, URGENCY, WORK_CONSERVING, serve_members
from baselines.registry import register_scheduler
from baselines.size_based.output_length import UNKNOWN, output_left
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of, request_memory
from llmsched_env.simulator.scheduler import Linear, Param, Scheduler

PARAMS = {
    **LIMITS,
    "youth": Param(0.8, 0, 1, "share C of its prediction after which a request is not preempted", Linear(0, 1)),
}
params, own = params_of(PARAMS), request_memory(URGENCY)
AHEAD = 2.0 * UNKNOWN  # subtracted from the key of a request that is past its youth, so that it goes before all others


@compiled
def compose(view):
    """Least predicted output left first; once C of its prediction is generated, a running request is not preempted.

    Such a request goes before all that may be preempted, and loses memory only to others like it. TRAIL predicts again
    after every token, from the model's own layers. Here a prediction is made once: what is left is the prediction less
    the tokens generated, and at least one. Requests without a prediction come last and may always be preempted.
    """
    urgency, youth = own(view).urgency, params(view).youth
    for i in view.running:
        known = view.req.known_output[i]
        ahead = AHEAD if view.req.generated[i] >= youth * known else 0.0
        urgency[i] = output_left(view, i, known) - ahead
    for i in view.waiting:
        urgency[i] = output_left(view, i, view.req.known_output[i])
    return serve_members(view, True)


trail = register_scheduler(
    Scheduler(
        "trail",
        compose,
        params=PARAMS,
        memory={"request": URGENCY, "heap": ("order",)},
        needs_lengths="predicted",
        reference="TRAIL, arXiv 2410.01035",
        **WORK_CONSERVING,
    )
)
