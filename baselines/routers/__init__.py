"""Routers: rules that bind a call to an engine, one family a file, and the registry of them all."""

from baselines.routers.blind import random_router, round_robin
from baselines.routers.queue_lengths import join_shortest_queue, least_outstanding_tokens, power_of_two
from llmsched_env.simulator.router import Router
from llmsched_env.validation import check_choice

ROUTERS: dict[str, Router] = {
    router.name: router
    for router in (round_robin, random_router, join_shortest_queue, least_outstanding_tokens, power_of_two)
}


def get(name: str) -> Router:
    """The router registered under `name`.

    Raises:
        ValueError: for an unknown name, with the closest known ones.
    """
    return ROUTERS[check_choice("router", name, tuple(ROUTERS))]


__all__ = [
    "ROUTERS",
    "get",
    "join_shortest_queue",
    "least_outstanding_tokens",
    "power_of_two",
    "random_router",
    "round_robin",
]
