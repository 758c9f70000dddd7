"""Routers: rules that bind a call to an engine, one family a file, and the registry of them all."""

from baselines.routers.affinity import prefix_aware, session_affinity
from baselines.routers.blind import random_router, round_robin
from baselines.routers.distserve import distserve_pools
from baselines.routers.memory import br_0, llumnix
from baselines.routers.queue_lengths import join_shortest_queue, least_outstanding_tokens, power_of_two
from llmsched_env.simulator.router import Router
from llmsched_env.validation import check_choice

ROUTERS: dict[str, Router] = {
    router.name: router
    for router in (
        round_robin,
        random_router,
        join_shortest_queue,
        least_outstanding_tokens,
        power_of_two,
        prefix_aware,
        session_affinity,
        llumnix,
        br_0,
    )
}


def get(name: str) -> Router:
    """The router registered under `name`.

    Raises:
        ValueError: for an unknown name, with the closest known ones.
    """
    return ROUTERS[check_choice("router", name, tuple(ROUTERS))]


__all__ = [
    "ROUTERS",
    "br_0",
    "distserve_pools",
    "get",
    "join_shortest_queue",
    "least_outstanding_tokens",
    "llumnix",
    "power_of_two",
    "prefix_aware",
    "random_router",
    "round_robin",
    "session_affinity",
]
