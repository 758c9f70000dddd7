"""Arrays that grow while runs go on, and engines beside one another in one world."""

import math

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.simulator.simulator import Simulator
from tests.simulator.cases import modest

ENGINE = ls.EngineConfig(
    ls.Staircase(c=0.01128, a=0.03547, b0=16), token_budget=128, kv_blocks=18, block_size=8, first_token="separate"
)
END = 900.0  # s, after all is done


def table(seed, rate=6.0, horizon=8.0):
    lengths = {"prompt_tokens": ls.dist.Uniform(1, 90), "output_tokens": ls.dist.Uniform(1, 30)}
    return ls.Workload.poisson(rate=rate, horizon=horizon, **lengths).sample(seed)


def alone(scheduler, requests, until=END, record="batches"):
    simulator = Simulator(ENGINE, scheduler, record=record)
    simulator.load(0, requests)
    simulator.advance(0, until)
    return simulator.result(0, requests, "alone")


@pytest.mark.parametrize("name", baselines.REGISTRY)
def test_records_grow_without_a_gap(name):
    """More rows than the arrays had room for at first, and the same as with room from the start."""
    requests = table(0, rate=20.0, horizon=100.0)
    small, large = (Simulator(ENGINE, baselines.get(name), record="entries") for _ in range(2))
    large.load(0, requests)
    for _ in range(7):
        recording = large.world.recording
        recording.num_batches, recording.num_entries = len(large.world.record_batches), len(large.world.record_entries)
        large.grow_records()
        recording.num_batches = recording.num_entries = 0
    rows = []
    for simulator in (small, large):
        simulator.load(0, requests)
        room = len(simulator.world.record_batches)
        simulator.advance(0, 1500.0)
        rows.append((room, len(simulator.world.record_batches), simulator.result(0, requests, "w")))
    (room, grown, a), (enough, same, b) = rows
    assert room < len(a.batches) <= grown and len(b.batches) <= enough == same
    for part in ("requests", "batches", "batch_entries", "token_gaps"):
        assert getattr(a, part).tobytes() == getattr(b, part).tobytes()
    assert a.batches.start.tolist() == sorted(a.batches.start)
    assert np.array_equal(np.bincount(a.batch_entries.batch), a.batches.num_seqs)


@pytest.mark.parametrize("name", baselines.REGISTRY)
def test_engines_do_not_notice_that_the_world_grows(name):
    """Engine 1 is loaded anew with ever more requests while 0 and 2 are under way."""
    scheduler = modest(baselines.get(name))
    simulator = Simulator(ENGINE, scheduler, engines=3, record="off")
    first, third = table(1), table(2)
    simulator.load(0, first)
    simulator.load(2, third)
    clock = 0.0
    for k, size in enumerate((5.0, 9.0, 16.0, 40.0)):
        clock += 0.83
        simulator.advance(0, clock)
        simulator.advance(2, clock / 2)
        before = simulator.capacity
        second = table(10 + k, rate=size)
        simulator.load(1, second)
        simulator.advance(1, 2.0)
        assert simulator.capacity > before or k == 0
    for g in range(3):
        simulator.advance(g, END)
    for g, requests in enumerate((first, second, third)):
        shared, own = simulator.result(g, requests, "w"), alone(scheduler, requests)
        assert (shared.requests.engine == g).all()
        shared.requests.engine = 0
        assert shared.requests.tobytes() == own.requests.tobytes()
        assert simulator.clock(g) == own.end
    preempted = simulator.result(0, first, "w").requests.preemptions.sum()
    assert preempted > 0  # so that the order of the queues mattered


def test_the_memory_of_a_scheduler_moves_along():
    """Request, client and engine memory, and the heap, of an engine that is under way."""

    def compose(view):
        memory = view.mem
        for i in view.arrived:
            memory.request[i, 0] = view.clock
            memory.client[view.req.client[i], 0] += 1.0
            memory.heap[int(memory.engine[0])] = i
            memory.engine[0] += 1.0
        for i in view.running:
            ls.take(view, i, 1)
        for k in range(int(memory.engine[0])):
            ls.take(view, memory.heap[k], ls.ALL)
        return math.inf

    memory = {"request": ("seen",), "client": ("count",), "engine": ("arrived",), "heap": ()}
    scheduler = ls.Scheduler("memory", compose, memory=memory, mixes_phases=True, chunks_prefill=True)
    clients = np.array([0, 2, 1, 2, 0])
    requests = ls.Workload.from_arrays(0.25 * np.arange(5), [9] * 5, [4] * 5, client=clients).sample(0)
    states = []
    for grow in (False, True):
        simulator = Simulator(ENGINE, scheduler, engines=2, record="off")
        simulator.load(1, requests)
        simulator.advance(1, 0.6)
        if grow:
            simulator.load(0, ls.RequestTable.from_columns(np.zeros(20), [3] * 20, [2] * 20, client=[7] * 20))
        simulator.advance(1, END)
        world, first = simulator.world, simulator.capacity
        heap, rows = world.heap[1, :5] - first, slice(first, first + 5)
        columns = world.request_memory[rows, 0], world.client_memory[1, :3, 0], world.engine_memory[1], heap
        states.append([column.tolist() for column in (*columns, world.req.first_token[rows])])
    assert states[0] == states[1]
    assert states[0][:4] == [[0.0, 0.25, 0.5, 0.75, 1.0], [2.0, 1.0, 2.0], [5.0], [0, 1, 2, 3, 4]]


def test_the_memory_of_requests_moves_with_the_block_of_their_engine():
    """Room for 13 requests instead of 11: the new rows of the last of three engines overlap its old ones."""
    simulator = Simulator(ENGINE, baselines.plas, engines=3, record="off")
    for g, n in ((0, 2), (1, 2), (2, 11)):
        simulator.load(g, ls.RequestTable.from_columns(np.zeros(n), [3] * n, [2] * n))
    first = 2 * simulator.capacity
    simulator.world.request_memory[first : first + 11, 0] = np.arange(1.0, 12.0)
    simulator.load(0, ls.RequestTable.from_columns(np.zeros(13), [3] * 13, [2] * 13))
    memory = simulator.world.request_memory[:, 0].reshape(3, -1)
    assert memory[2, :11].tolist() == list(range(1, 12)) and memory.sum() == 66


def test_loading_again_starts_from_nothing():
    simulator = Simulator(ENGINE, baselines.sarathi, record="entries")
    for seed in (4, 5, 4):
        requests = table(seed)
        simulator.load(0, requests)
        simulator.advance(0, 3.7 if seed == 5 else END)
    again, own = simulator.result(0, requests, "w"), alone(baselines.sarathi, requests, record="entries")
    for part in ("requests", "batches", "batch_entries", "token_gaps"):
        assert getattr(again, part).tobytes() == getattr(own, part).tobytes()
    assert again.end == own.end


def test_engines_that_take_turns_keep_their_records_apart():
    """Two engines advance in small steps, each with a batch under way when the other one starts its own."""
    simulator = Simulator(ENGINE, baselines.sarathi, engines=2, record="batches")
    tables = [table(1), table(2)]
    for g in range(2):
        simulator.load(g, tables[g])
    for until in [*np.arange(0.0, 9.0, 0.11), END]:
        for g in range(2):
            simulator.advance(g, until)
    batches = simulator.result(0, tables[0], "both").batches
    for g in range(2):
        mine, own = batches[batches.engine == g], alone(baselines.sarathi, tables[g]).batches
        assert len(mine) == len(own)
        assert all(np.array_equal(mine[name], own[name]) for name in own.dtype.names if name != "engine")


def test_records_grow_where_nearly_all_requests_are_present():
    # A row a request of the batch under way and of the one to come: twice the requests there are, not once.
    workload = ls.Workload.from_arrays(np.zeros(300), [8] * 300, [400] * 300)
    engine = ls.EngineConfig(ls.Staircase(c=0.0, a=0.01, b0=64), token_budget=4096)
    result = ls.simulate(baselines.sarathi(token_budget=4096), workload, engine, record="entries")
    assert len(result.batch_entries) == 300 * 400


def test_rows_that_have_grown_take_a_larger_table():
    """Engine 1 is loaded with more requests after the records of both have grown."""
    simulator = Simulator(ENGINE, baselines.sarathi, engines=2, record="entries")
    tables = [table(1, rate=20.0, horizon=60.0), table(2)]
    for g in range(2):
        simulator.load(g, tables[g])
    simulator.advance(0, 1500.0)
    before = simulator.result(0, tables[0], "w")
    simulator.load(1, table(3, rate=20.0, horizon=90.0))
    after = simulator.result(0, tables[0], "w")
    assert len(simulator.world.record_batches) > 4096  # as many as there is room for at first
    for part in ("requests", "batches", "batch_entries", "token_gaps"):
        assert getattr(before, part).tobytes() == getattr(after, part).tobytes()
