"""A network of one engine is that engine: the same rows, byte for byte."""

import warnings

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from baselines.routers import join_shortest_queue
from llmsched_env.simulator.simulate import simulate_network
from tests.simulator.cases import bound, memory_case, small_case

NAMES = ("sarathi", "vllm_v1", "vllm_v0", "sglang", "orca_reserved", "fastertransformer_static", "class_priority")
LONG = 400.0


def assert_same(network, alone):
    rows = network.requests.copy()
    assert np.array_equal(rows.task, np.arange(len(rows)))
    rows.task = -1
    assert rows.tobytes() == alone.requests.tobytes()
    for part in ("batches", "batch_entries", "token_gaps"):
        assert getattr(network, part).tobytes() == getattr(alone, part).tobytes(), part
    assert network.stalled == alone.stalled
    assert network.end == alone.end


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [small_case, memory_case])
def test_rows_are_those_of_the_engine_alone(name, make):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        case = make(lambda low, high, rng=rng: int(rng.integers(low, high + 1)))
        scheduler = bound(baselines.get(name), case)
        horizon = LONG if seed % 2 else 0.5 + seed / 20
        options = {"horizon": horizon, "record": "entries", "interpreted": True}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* stalled at ", RuntimeWarning)
            alone = ls.simulate(scheduler, case.workload, case.engine, **options)
        network = simulate_network(scheduler, case.workload, [case.engine], join_shortest_queue, **options)
        assert_same(network, alone)
