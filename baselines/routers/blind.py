"""Routers that use no state of the engines: in turn, or at random."""

from baselines.registry import register_router
from baselines.routers.fleet import allowed_at, num_allowed, random_engine
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import router_memory
from llmsched_env.simulator.router import Router

MEMORY = ("turn",)  # calls sent so far
memory = router_memory(MEMORY)


@compiled
def _in_turn(fleet, i):
    """Engines one after another."""
    m = memory(fleet)
    place = int(m.turn) % num_allowed(fleet)
    m.turn += 1.0
    return allowed_at(fleet, place)


@compiled
def _at_random(fleet, i):
    """Any engine with the same probability."""
    return random_engine(fleet)


round_robin = register_router(Router("round_robin", _in_turn, memory=MEMORY, reference="cyclic"))
random_router = register_router(Router("random", _at_random, reference="uniform"))
