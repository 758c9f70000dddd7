"""Routers by the KV memory that calls take or will take."""

from baselines.registry import register_router
from llmsched_env.compiled import compiled
from llmsched_env.simulator.router import Router, demanded_blocks


@compiled
def _freest(fleet, i):
    """The engine with the most free KV blocks for each request in its batch; queued prompts count as used."""
    best, most = -1, 0.0
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1:
            freeness = (fleet.kv[g].total - demanded_blocks(fleet, g)) / max(1, fleet.engines[g].num_running)
            if best < 0 or freeness > most:
                best, most = g, freeness
    return best


@compiled
def _least_overflow(fleet, i):
    """The engine that the prompt lifts least above the highest demand for memory; of equals that with fewest calls.

    Demand below the highest costs nothing, demand above it makes all others wait. Since calls are sent one at a time
    and every engine would get the same call, only the overflow term of the paper's score differs between engines.
    """
    highest = 0.0
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1:
            highest = max(highest, demanded_blocks(fleet, g))
    best, least = -1, 0.0
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1:
            prompt = fleet.req.prompt_tokens[i] / fleet.kv[g].block_size
            overflow = max(0.0, demanded_blocks(fleet, g) + prompt - highest)
            fewer = best >= 0 and fleet.outstanding[g].calls < fleet.outstanding[best].calls
            if best < 0 or overflow < least or (overflow == least and fewer):
                best, least = g, overflow
    return best


llumnix = register_router(
    Router("llumnix", _freest, reference="Llumnix, OSDI 2024 (arXiv 2406.03243): dispatch by freeness")
)
br_0 = register_router(
    Router("br_0", _least_overflow, reference="BR-0 of BalanceRoute, arXiv 2605.06113; the tie-break is ours")
)
