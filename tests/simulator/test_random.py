"""Random numbers of schedulers."""

import math

import numpy as np

import llmsched_env as ls
from llmsched_env.compiled import interpreted
from llmsched_env.simulator.memory import seeded
from llmsched_env.simulator.simulator import Simulator
from llmsched_env.simulator.world import new_world, view_of


def view(seed):
    world = new_world(1, 1)
    world.rng[0] = seeded(seed)
    return view_of.py_func(world, 0)


def xorshift(state):
    """Marsaglia (2003), on Python's integers."""
    state ^= state << 13 & (1 << 64) - 1
    state ^= state >> 7
    return state ^ (state << 17 & (1 << 64) - 1)


def test_compiled_and_interpreted_numbers_are_the_published_generators():
    for seed in range(20):
        a, b, state = view(seed), view(seed), int(seeded(seed)[0])
        for _ in range(50):
            state = xorshift(state)
            assert ls.uniform(a) == interpreted(ls.uniform)(b) == (state >> 11) / 2**53
        assert a.mem.rng.tolist() == b.mem.rng.tolist() == [state, 50]


def test_numbers_are_uniform_and_neighbouring_seeds_unrelated():
    n = 20_000
    streams = []
    for seed in range(3):
        source = view(seed)
        streams.append(np.array([ls.uniform(source) for _ in range(n)]))
    for stream in streams:
        assert stream.min() >= 0 and stream.max() < 1
        counts = np.histogram(stream, 20, (0, 1))[0]
        assert ((counts - n / 20) ** 2 / (n / 20)).sum() < 19 + 4 * math.sqrt(2 * 19)  # chi-square, 4 sigma
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(streams[a], streams[b])[0, 1]) < 4 / math.sqrt(n)
    for stream in streams:
        assert abs(np.corrcoef(stream[1:], stream[:-1])[0, 1]) < 4 / math.sqrt(n)


def test_a_run_starts_from_the_seed_it_is_given():
    def compose(view):
        for i in view.waiting:
            view.mem.engine[0] = ls.uniform(view)
            ls.take(view, i, 1)
        return math.inf

    scheduler = ls.Scheduler("dice", compose, memory={"engine": ("drawn",)}, chunks_prefill=True)
    engine = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=8))
    requests = ls.Workload.from_arrays([0.0], [1], [1])
    for plain in (False, True):
        simulator = Simulator(engine, scheduler, record="off", interpreted=plain)
        for seed in (3, 4, 3):
            simulator.load(0, requests.sample(0), seed)
            simulator.advance(0, math.inf)
            assert simulator.world.engine_memory[0, 0] == ls.uniform(view(seed))
