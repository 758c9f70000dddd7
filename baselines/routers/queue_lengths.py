"""Routers by the unfinished calls, or tokens, of each engine."""

from baselines.registry import register_router
from baselines.routers.fleet import least_loaded, random_engine
from llmsched_env.compiled import compiled
from llmsched_env.simulator.router import Router


@compiled
def _fewest_calls(fleet, i):
    """The engine with the fewest unfinished calls."""
    return least_loaded(fleet, fleet.outstanding.calls)


@compiled
def _fewest_tokens(fleet, i):
    """The engine with the fewest tokens of prompts and predicted outputs in unfinished calls."""
    return least_loaded(fleet, fleet.outstanding.known_work)


@compiled
def _better_of_two(fleet, i):
    """Of two engines drawn at random (with replacement), the one with fewer unfinished calls."""
    a, b = random_engine(fleet), random_engine(fleet)
    return b if fleet.outstanding[b].calls < fleet.outstanding[a].calls else a


@compiled
def _least_score(fleet, i):
    """The engine with the least of running calls plus four times the waiting ones; of equals the first."""
    best, least = -1, 0.0
    for g in range(len(fleet.allowed)):
        running = fleet.engines[g].num_running
        score = running + 4.0 * (fleet.outstanding[g].calls - running)
        if fleet.allowed[g] == 1 and (best < 0 or score < least):
            best, least = g, score
    return best


join_shortest_queue = register_router(
    Router("join_shortest_queue", _fewest_calls, reference="Vidur's least outstanding requests")
)
least_outstanding_tokens = register_router(
    Router("least_outstanding_tokens", _fewest_tokens, needs_lengths="predicted", reference="least outstanding work")
)
power_of_two = register_router(
    Router("power_of_two", _better_of_two, reference="Mitzenmacher 2001; Vvedenskaya et al. 1996")
)
vllm_data_parallel = register_router(
    Router(
        "vllm_data_parallel",
        _least_score,
        reference="vLLM between its data-parallel ranks, with counts that are up to date (there up to 100 ms old)",
    )
)
