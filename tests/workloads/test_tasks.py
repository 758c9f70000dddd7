"""Tables of tasks: what they hold, what they refuse, and sources that replay them."""

import math

import numpy as np
import pytest

from llmsched_env.machine.batch_time import Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.theory import capacity, task_capacity
from llmsched_env.workloads import FixedTasks, ReplayedTasks, RequestTable, SingleCalls, TaskTable, Workload

ENGINE = EngineConfig(batch_time=Staircase(c=0.01, a=0.01, b0=128), token_budget=512)


def requests(arrival, prompt=10, output=5):
    n = len(arrival)
    return RequestTable.from_columns(arrival, np.full(n, prompt), np.full(n, output))


def two_tasks(**changes):
    """A diamond 0 -> {1, 2} -> 3 at time 0 and a chain 4 -> 5 at time 2."""
    columns = {
        "task": [0, 0, 0, 0, 1, 1],
        "edges": [(0, 1), (0, 2), (1, 3), (2, 3), (4, 5)],
        "delay": [0.0, 1.0, 0.5, 2.0, 0.25, 0.0],
    }
    arrival = changes.pop("arrival", [0.0] * 4 + [2.0] * 2)
    return TaskTable.from_columns(requests(arrival), **{**columns, **changes})


def test_paths_of_small_graphs():
    table = two_tasks()
    assert (len(table), table.num_tasks, table.arrival.tolist()) == (6, 2, [0.0, 2.0])
    assert table.hops().tolist() == [0, 1, 1, 2, 0, 1]
    work = np.array([1.0, 10.0, 20.0, 3.0, 5.0, 7.0])
    assert table.path_left(work).tolist() == [24.0, 13.0, 23.0, 3.0, 12.0, 7.0]
    # 0, then 2 after 0.5 s, then 3 after 2 s; 4 after 0.25 s, then 5.
    assert table.critical_path(work).tolist() == [1 + 0.5 + 20 + 2 + 3, 0.25 + 5 + 7]
    # With short calls, the delay of 1 s before call 1 decides.
    assert table.critical_path(np.zeros(6)).tolist() == [3.0, 0.25]


def test_paths_of_random_graphs_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = int(rng.integers(1, 9))
        edges = [(i, j) for i in range(n) for j in range(i + 1, n) if rng.random() < 0.4]
        rng.shuffle(edges)
        table = TaskTable.from_columns(requests([0.0] * n), task=[0] * n, edges=edges)
        work = rng.integers(1, 9, n).astype(float)

        def heaviest(i, edges=edges, work=work):
            return work[i] + max((heaviest(j) for a, j in edges if a == i), default=0.0)

        assert table.path_left(work).tolist() == [heaviest(i) for i in range(n)]
        assert table.critical_path(work).tolist() == [max(heaviest(i) for i in range(n))]


def test_an_empty_table():
    table = TaskTable.from_columns(requests([]))
    assert (len(table), table.num_tasks, len(table.hops()), len(table.critical_path(np.zeros(0)))) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": [1, 1, 1, 1, 2, 2]}, r"task\[0\] must be 0 for the first call and then the same or one more"),
        ({"task": [0, 0, 0, 0, 2, 2]}, r"task\[4\] must be .* one more than before, got 2"),
        ({"task": [0, 0, 1, 0, 1, 1]}, r"task\[3\] must be"),
        ({"task": [0, 0]}, "task must have one value per call, that is 6, got shape"),
        ({"arrival": [0.0, 0.0, 0.0, 1.0, 2.0, 2.0]}, r"arrival\[3\] must be the same for all calls of a task, got 1"),
        ({"delay": [0, 0, -1.0, 0, 0, 0]}, r"delay\[2\] must be a finite number >= 0 \(s\), got -1"),
        ({"delay": [0, 0, math.inf, 0, 0, 0]}, r"delay\[2\] must be a finite number"),
        ({"engine": [0, 0, 0, 0, -2, 0]}, r"engine\[4\] must be the number of an engine, or -1 \(any\), got -2"),
        ({"edges": [(0, 1), (1, 1)]}, r"edges\[1\] must be pairs of calls of one task, the earlier one first"),
        ({"edges": [(2, 1)]}, r"edges\[0\] must be .* got \[2 1\]"),
        ({"edges": [(3, 4)]}, r"edges\[0\] must be pairs of calls of one task"),
        ({"edges": [(4, 6)]}, r"edges\[0\] must be"),
    ],
)
def test_bad_tables_name_column_index_and_what_is_allowed(changes, message):
    with pytest.raises(ValueError, match=message):
        two_tasks(**changes)


def test_fixed_tasks_stretch_with_their_graphs():
    source = FixedTasks(two_tasks(), "mine")
    assert source.rate == 0.5 and source.name == "mine"
    assert source.sample(0) is source.sample(7)
    faster = source.scaled(2.0).sample(0)
    assert faster.arrival.tolist() == [0.0, 0.5] and faster.delay.tolist() == source.table.delay.tolist()
    assert faster.edges.tolist() == source.table.edges.tolist()
    at_once = FixedTasks(two_tasks(arrival=[0.0] * 6))
    with pytest.raises(ValueError, match="the rate cannot be changed: the arrivals of tasks do not spread"):
        at_once.scaled(1.0)
    with pytest.raises(ValueError, match="seed must be an integer >= 0, got -1"):
        source.sample(-1)


def test_replayed_tasks_keep_their_order_at_times_of_the_seed():
    table = TaskTable.from_columns(
        requests([0.0] * 200), task=np.arange(200) // 2, edges=[(i, i + 1) for i in range(0, 200, 2)]
    )
    source = ReplayedTasks(table, rate=4.0)
    drawn = source.sample(3)
    assert drawn.arrival[-1] == pytest.approx(25.0) and (np.diff(drawn.arrival) > 0).all()
    assert drawn.task is table.task and drawn.edges is table.edges
    assert np.array_equal(source.sample(3).arrival, drawn.arrival)
    assert not np.array_equal(source.sample(4).arrival, drawn.arrival)
    assert source.scaled(8.0).sample(3).arrival == pytest.approx(drawn.arrival / 2)
    # Exponential gaps of a mean that is exact: their squares have mean 2 n/(n + 1), each with a variance below 20.
    squares = np.concatenate([np.diff(source.sample(seed).arrival, prepend=0.0) * 4 for seed in range(40)]) ** 2
    assert abs(squares.mean() - 2 * 100 / 101) <= 4 * math.sqrt(20 / len(squares))
    with pytest.raises(ValueError, match="rate must be a finite number > 0"):
        ReplayedTasks(two_tasks(), rate=0.0)


def test_requests_are_tasks_of_one_call():
    workload = Workload.poisson(5.0, 10, 5, 20.0)
    source = SingleCalls(workload)
    table = source.sample(1)
    assert table.num_tasks == len(table) == len(workload.sample(1)) and not len(table.edges)
    assert source.scaled(2.0).rate == 2.0 and source.name == "poisson"
    assert source.at_load(0.5, ENGINE).rate == pytest.approx(workload.at_load(0.5, ENGINE).rate)


def test_capacity_is_where_the_busiest_engine_has_load_one():
    calls = 1 / capacity(ENGINE, Workload.poisson(1.0, 10, 5, 1.0))  # s of one call; all are the same
    fast = EngineConfig(batch_time=Staircase(c=0.005, a=0.005, b0=128), token_budget=512)
    assert task_capacity(ENGINE, two_tasks()) == pytest.approx(2 / (6 * calls))
    assert task_capacity([ENGINE] * 3, two_tasks()) == pytest.approx(3 * 2 / (6 * calls))
    assert task_capacity([ENGINE, fast], two_tasks()) == pytest.approx(3 * 2 / (6 * calls))
    pinned = two_tasks(engine=[0, 0, 0, 0, 1, 1])
    assert task_capacity([ENGINE] * 2, pinned) == pytest.approx(2 / (4 * calls))
    # Four calls pinned to engine 0, two free: the free ones go to engine 1, or are shared by three idle ones.
    free = two_tasks(engine=[0, 0, 0, 0, -1, -1])
    assert task_capacity([ENGINE] * 2, free) == pytest.approx(2 / (4 * calls))
    # One pinned: 6 calls are spread evenly over two engines.
    assert task_capacity([ENGINE] * 2, two_tasks(engine=[0, -1, -1, -1, -1, -1])) == pytest.approx(2 / (3 * calls))
    source = FixedTasks(two_tasks()).at_load(0.8, [ENGINE] * 3)
    assert source.load == 0.8 and source.rate == pytest.approx(0.8 / calls)
    assert source.scaled(1.0).load is None
    with pytest.raises(ValueError, match="engine must be below 1, got 1"):
        task_capacity(ENGINE, pinned)
    with pytest.raises(ValueError, match="tasks must hold at least one call"):
        task_capacity(ENGINE, TaskTable.from_columns(requests([])))
