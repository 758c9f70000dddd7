"""Routers that look at nothing: in turn, or at random."""

from baselines.routers.fleet import allowed_at, num_allowed, random_engine
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.router import Router


@compiled
def _in_turn(fleet, i):
    """Engines one after another."""
    place = int(fleet.memory[0]) % num_allowed(fleet)
    fleet.memory[0] += 1.0
    return allowed_at(fleet, place)


@compiled
def _at_random(fleet, i):
    """Any engine with the same probability."""
    return random_engine(fleet)


round_robin = Router("round_robin", _in_turn, memory=("turn",), reference="cyclic")
random_router = Router("random", _at_random, reference="uniform")
