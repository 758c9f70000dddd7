"""Copies of engines and networks under way: nothing is left out, and they go on anywhere."""

import math

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from baselines.routers import round_robin
from llmsched_env.fields import words
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.network_state import Network
from llmsched_env.simulator.recording import RECORDS
from llmsched_env.simulator.simulator import Simulator
from llmsched_env.simulator.snapshot import (
    BY_REQUEST,
    LISTS,
    OF_NETWORKS,
    _in_use,
    clone_engine,
    clone_network,
    restore_engine,
    restore_network,
)
from llmsched_env.simulator.world import World
from tests.envs.test_cluster import with_prefixes

ENGINE = ls.EngineConfig(
    ls.Staircase(c=0.01, a=0.02, b0=64), token_budget=256, kv_blocks=80, block_size=8, schedule_ahead=1,
    prefix_caching=True, step_noise=0.1,
)  # fmt: skip
SECOND = 1  # the engine that is copied


def calls(seed):
    return with_prefixes(seed).calls


def under_way(record="off", engines=3, **kwargs):
    """Engines in the middle of different requests."""
    simulator = Simulator(ENGINE, baselines.get("vtc"), engines, record, **kwargs)
    for g in range(engines):
        simulator.load(g, calls(g), seed=g)
        simulator.advance(g, 2.0 + g)
    return simulator


def test_every_array_of_a_world_comes_back():
    """By the fields of `World`: one that is new and has neither a row for each engine nor for each request fails."""
    simulator = under_way()
    g, size = SECOND, simulator.capacity
    state, world = clone_engine(simulator, g), simulator.world
    before = World(*(tuple(a.copy() for a in each) if isinstance(each, tuple) else each.copy() for each in world))
    used = [array.copy() for array in _in_use(world, g)]
    columns = lambda each: [*each.req, *each.hidden, each.request_memory]  # noqa: E731
    spoil(*(column[g * size : (g + 1) * size] for column in columns(world)))
    others = (*BY_REQUEST, *OF_NETWORKS, *RECORDS, "recording_record")
    rows = [name for name in World._fields if name not in others]
    spoil(*(getattr(world, name)[g : g + 1] for name in rows))
    restore_engine(simulator, g, state)
    for ours, theirs in zip(columns(simulator.world), columns(before), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    for name in rows:
        array = getattr(simulator.world, name)
        assert len(array) == simulator.num_engines, f"{name} has no row for each engine: copy it in snapshot.py"
        if name not in LISTS:
            assert array.tobytes() == getattr(before, name).tobytes(), name
    assert len(used) == len(LISTS) and len(used[0]) > 0 and len(used[1]) > 0
    for ours, theirs in zip(_in_use(simulator.world, g), used, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_every_array_of_a_network_comes_back():
    simulator = NetworkSimulator([ENGINE] * 2, baselines.sarathi, round_robin)
    simulator.load(with_prefixes(0), seed=3)
    simulator.advance(3.0)
    state, before = clone_network(simulator), written(simulator)
    assert len(before) >= len(World._fields) + len(Network._fields) and len(simulator.world.record_batches) > 4000
    for name in (*World._fields, *Network._fields):
        each = getattr(simulator.world if name in World._fields else simulator.network, name)
        spoil(*(each if isinstance(each, tuple) else [each]))
    restore_network(simulator, state)
    assert written(simulator) == before
    assert len(simulator.world.record_batches) > 4000  # the room that there was


def written(simulator):
    """The bytes of all arrays of a network, of records those of the rows that have been written."""
    found, recording = [], simulator.world.recording
    rows = dict(zip(RECORDS, (recording.num_batches, recording.num_entries, recording.num_gaps), strict=True))
    for state in (simulator.world, simulator.network):
        for name, each in zip(state._fields, state, strict=True):
            found += [array[: rows.get(name)].tobytes() for array in (each if isinstance(each, tuple) else [each])]
    return found


def spoil(*arrays):
    """Write other bytes."""
    for array in arrays:
        np.ndarray.view(words(array), np.int64)[...] = 0x5A5A


@pytest.mark.parametrize("interpreted", [False, True])
@pytest.mark.parametrize("target", [0, 2])
def test_an_engine_goes_on_in_the_place_of_another_one(interpreted, target):
    simulator, alone = under_way(interpreted=interpreted), under_way(interpreted=interpreted)
    state = clone_engine(simulator, SECOND)
    simulator.advance(SECOND, 5.0)
    restore_engine(simulator, target, state)
    simulator.advance(target, math.inf)
    alone.advance(SECOND, math.inf)
    ours = simulator.result(target, calls(SECOND), "w").requests
    theirs = alone.result(SECOND, calls(SECOND), "w").requests
    assert (ours.prefix_hit > 0).any() and (ours.preemptions > 0).any()
    assert (ours.engine == target).sum() > 0
    ours.engine = theirs.engine
    assert ours.tobytes() == theirs.tobytes()
    assert simulator.clock(target) == alone.clock(SECOND)


def test_rows_are_restored_where_there_is_less_room_for_them():
    requests = ls.Workload.poisson(5.0, ls.dist.Uniform(1, 60), ls.dist.Uniform(1, 90), horizon=300.0).sample(0)
    long, fresh = (Simulator(ENGINE, baselines.sarathi, record="entries") for _ in range(2))
    long.load(0, requests)
    long.advance(0, 280.0)
    fresh.load(0, calls(0))
    restore_engine(fresh, 0, clone_engine(long, 0))
    for simulator in (long, fresh):
        simulator.advance(0, math.inf)
    ours, theirs = (simulator.result(0, requests, "w") for simulator in (fresh, long))
    assert len(theirs.batches) > 4096  # as many as there is room for at first
    for name in ("requests", "batches", "batch_entries", "token_gaps"):
        assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes(), name


def test_engines_that_share_their_records_are_not_copied():
    simulator = under_way(record="batches")
    with pytest.raises(ValueError, match="record must be 'off'"):
        clone_engine(simulator, 0)
