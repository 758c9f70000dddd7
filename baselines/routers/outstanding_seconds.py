"""Least outstanding seconds: what a call costs at each engine in seconds of its own, so that unequal engines compare.

The cost is the time that the call adds to the latency of all calls, itself included: it waits for the work that is
there, and the calls that are there wait for its prompt.
"""

from baselines.registry import register_router
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import router_params
from llmsched_env.simulator.router import CHUNK, Router, chunk_seconds, decode_step_seconds, predicted_output
from llmsched_env.simulator.scheduler import Param

PARAMS = {
    "output_weight": Param(1.0, 0, 100, "prompt tokens that count as much as a predicted output token"),
    "own_decode": Param(1.0, 0, 1000, "weight of the decode steps of the call itself"),
    "held_up": Param(1.0, 0, 1000, "weight of the prefill time of the call, once for itself and for each call there"),
}
params = router_params(PARAMS)


@compiled
def _fewest_seconds(fleet, i):
    """The engine to whose calls, with this one, it adds the fewest seconds; else the first."""
    p, best, least = params(fleet), -1, 0.0
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1:
            sent = fleet.outstanding[g]
            prompt = float(fleet.req.prompt_tokens[i])
            tokens = sent.prompt_tokens + p.output_weight * (sent.known_work - sent.prompt_tokens)
            tokens += p.held_up * (1 + sent.calls) * prompt
            seconds = tokens / CHUNK * chunk_seconds(fleet.law[g])
            step = decode_step_seconds(fleet.law[g], fleet.kv[g], fleet.engines[g].num_running, prompt)
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
        reference="join the shortest expected delay, plus the delay of the others",
    )
)
