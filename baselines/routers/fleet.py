"""What several routers need: a random number, an engine drawn at random, the least loaded one."""

import numpy as np

from llmsched_env.simulator.compiled import compiled


@compiled
def fleet_uniform(fleet):
    """A random number in [0, 1) from the router's own stream (Marsaglia's xorshift, 64 bits, shifts 13, 7, 17)."""
    rng = fleet.rng
    x = np.uint64(rng[0])
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    rng[0] = x
    rng[1] += np.uint64(1)
    return float(x >> np.uint64(11)) * 2.0**-53


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
    """How many engines the call may go to."""
    total = 0
    for g in range(len(fleet.allowed)):
        total += fleet.allowed[g]
    return total


@compiled
def random_engine(fleet):
    """One of the allowed engines, each as likely as the others."""
    return allowed_at(fleet, int(fleet_uniform(fleet) * num_allowed(fleet)))


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
