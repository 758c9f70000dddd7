"""Output lengths as a scheduler is told them: what is left of one, and noise on it."""

import math

from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import uniform

UNKNOWN = 1e9  # tokens, where there is no prediction: behind all others, first come first served


@compiled(inline=True)
def output_left(view, i, expected):
    """Output tokens of request `i` that are still to be scheduled if it has `expected` in all; at least one."""
    if math.isnan(expected):
        return UNKNOWN
    return max(expected - view.req.generated[i] - view.req.in_flight[i], 1.0)


@compiled
def log_normal(view, sd):
    """A random factor whose logarithm has mean 0 and standard deviation `sd`, from the scheduler's own stream."""
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(view)))
    return math.exp(sd * radius * math.cos(2.0 * math.pi * uniform(view)))
