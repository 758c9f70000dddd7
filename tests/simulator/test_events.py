"""The clock of an engine, which lets in the arrivals it passes."""

import math

import numpy as np

import baselines
import llmsched_env as ls
from llmsched_env.simulator.simulator import Simulator


def test_the_clock_integrates_the_number_in_system():
    """Two requests of one batch each at 1 and 1.5 s: present from 1 to 2 and from 1.5 to 3."""
    engine = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=8))
    simulator = Simulator(engine, baselines.sarathi, record="off")
    simulator.load(0, ls.Workload.from_arrays([1.0, 1.5], [2, 2], [1, 1]).sample(0))
    for until, area, present in ((0.5, 0.0, 0), (1.25, 0.25, 1), (1.75, 1.0, 2), (2.0, 1.5, 1), (9.0, 2.5, 0)):
        simulator.advance(0, until)
        assert (simulator.world.engines[0].request_seconds, simulator.world.engines[0].num_in_system) == (area, present)


def test_stopping_on_the_way_changes_nothing():
    workload = ls.Workload.poisson(rate=9.0, prompt_tokens=ls.dist.Uniform(1, 90), output_tokens=8, horizon=6.0)
    engine = ls.EngineConfig(ls.Staircase(c=0.01128, a=0.03547, b0=16), token_budget=64)
    for scheduler in baselines.REGISTRY.values():
        whole, parts = Simulator(engine, scheduler), Simulator(engine, scheduler)
        table = workload.sample(3)
        whole.load(0, table)
        parts.load(0, table)
        whole.advance(0, 8.0)
        for until in np.arange(0.0, 8.0, 0.037):
            parts.advance(0, until)
            assert parts.clock(0) <= until
        parts.advance(0, 8.0)
        a, b = whole.result(0, table, "w"), parts.result(0, table, "w")
        assert a.requests.tobytes() == b.requests.tobytes() and a.batches.tobytes() == b.batches.tobytes()
        assert math.isclose(
            whole.world.engines[0].request_seconds, parts.world.engines[0].request_seconds, rel_tol=1e-12
        )
