"""Least outstanding seconds: the calls of an engine in seconds of its own, so that unequal engines compare."""

from baselines.registry import register_router
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import router_params
from llmsched_env.simulator.router import CHUNK, Router, chunk_seconds, decode_step_seconds, predicted_output
from llmsched_env.simulator.scheduler import Param

PARAMS = {
    "output_weight": Param(1.0, 0, 100, "prompt tokens that count as much as a predicted output token"),
    "own_decode": Param(1.0, 0, 100, "weight of the decode steps of the call itself"),
}
params = router_params(PARAMS)


@compiled
def _fewest_seconds(fleet, i):
    """The engine with the fewest seconds of work in unfinished calls and in the decode of this one; else the first."""
    p, best, least = params(fleet), -1, 0.0
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1:
            sent = fleet.outstanding[g]
            tokens = sent.prompt_tokens + p.output_weight * (sent.known_work - sent.prompt_tokens)
            seconds = tokens / CHUNK * chunk_seconds(fleet.law[g])
            step = decode_step_seconds(
                fleet.law[g], fleet.kv[g], fleet.engines[g].num_running, fleet.req.prompt_tokens[i]
            )
            seconds += p.own_decode * predicted_output(fleet.req, i) * step
            if best < 0 or seconds < least:
                best, least = g, seconds
    return best


least_outstanding_seconds = register_router(
    Router(
        "least_outstanding_seconds",
        _fewest_seconds,
        params=PARAMS,
        needs_lengths="predicted",
        reference="least outstanding work over the speed of the engine, as in join the shortest expected delay",
    )
)
