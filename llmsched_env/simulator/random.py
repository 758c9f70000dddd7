"""Random numbers for schedulers: the same compiled and interpreted, and never shared with the workload."""

import numpy as np

from llmsched_env.simulator.compiled import compiled


def seeded(seed: int) -> np.ndarray:
    """u8[2]: a state for `uniform`, well mixed so that neighbouring seeds have nothing in common."""
    return np.array([np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] | np.uint64(1), 0], np.uint64)


@compiled
def uniform(view):
    """A random number in [0, 1) from the scheduler's own stream."""
    return draw(view.mem.rng)


@compiled
def draw(rng):
    """A random number in [0, 1) from the stream with state `rng` (Marsaglia's xorshift, 64 bits, shifts 13, 7, 17)."""
    x = rng[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    rng[0] = x
    rng[1] += np.uint64(1)
    return np.float64(x >> np.uint64(11)) * 2.0**-53
