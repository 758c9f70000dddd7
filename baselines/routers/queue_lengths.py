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


join_shortest_queue = register_router(
    Router("join_shortest_queue", _fewest_calls, reference="Vidur's least outstanding requests")
)
least_outstanding_tokens = register_router(
    Router("least_outstanding_tokens", _fewest_tokens, needs_lengths="predicted", reference="least outstanding work")
)
power_of_two = register_router(
    Router("power_of_two", _better_of_two, reference="Mitzenmacher 2001; Vvedenskaya et al. 1996")
)
