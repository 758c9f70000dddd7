"""Choices among the engines of a fleet that routers have in common: at random, the least loaded, overloaded ones."""

from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import draw


@compiled
def allowed_at(fleet, place):
    """The engine that is number `place` among those allowed."""
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1:
            if place == 0:
                return g
            place -= 1
    return -1


@compiled
def num_allowed(fleet):
    """Number of engines the call may go to."""
    total = 0
    for g in range(len(fleet.allowed)):
        total += fleet.allowed[g]
    return total


@compiled
def random_engine(fleet):
    """One of the allowed engines, each as likely as the others."""
    return allowed_at(fleet, int(draw(fleet.rng) * num_allowed(fleet)))


@compiled
def least_loaded(fleet, loads):
    """The allowed engine with the least of `loads` (f8[G]); of equals the first."""
    best = -1
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1 and (best < 0 or loads[g] < loads[best]):
            best = g
    return best


@compiled
def overloaded(fleet, g, more_calls, times):
    """Whether engine `g` has over `more_calls` more unfinished calls, and over `times` as many, as the least loaded."""
    least = fleet.outstanding[least_loaded(fleet, fleet.outstanding.calls)].calls
    calls = fleet.outstanding[g].calls
    return calls > least + more_calls and calls > least * times
