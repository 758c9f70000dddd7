"""Schedulers for classes and tasks on cases worked out by hand; every batch takes a second."""

import pytest

import baselines
import llmsched_env as ls
from baselines.routers import round_robin
from llmsched_env.simulator.simulate import simulate_network
from tests.network.cases import table

LAW = ls.Staircase(c=1.0, a=0.0, b0=1)


def simulate(scheduler, tasks, engines=1, **limits):
    machine = ls.EngineConfig(LAW, block_size=1, **limits)
    return simulate_network(scheduler, tasks, [machine] * engines, round_robin, record="entries", interpreted=True)


def batches(result):
    rows = [[] for _ in result.batches]
    for entry in result.batch_entries:
        rows[entry.batch].append((int(entry.request), int(entry.tokens)))
    return rows


def test_classes_share_what_more_urgent_ones_leave():
    tasks = table([0.0] * 3, [3, 4, 2], [2, 2, 2], klass=[1, 0, 1])
    assert batches(simulate(baselines.class_priority, tasks, token_budget=6)) == [
        [(1, 4), (0, 2)],
        [(1, 1), (0, 1), (2, 2)],
        [(0, 1), (2, 1)],
    ]
    assert batches(simulate(baselines.class_priority(rank_0=1, rank_1=0), tasks, token_budget=6)) == [
        [(0, 3), (2, 2), (1, 1)],
        [(0, 1), (2, 1), (1, 3)],
        [(1, 1)],
    ]


@pytest.mark.parametrize(("ranks", "preempted"), [((0, 1), [1, 0]), ((1, 0), [0, 1])])
def test_the_least_urgent_gives_up_its_memory(ranks, preempted):
    tasks = table([0.0, 0.5], [4, 4], [4, 4], klass=[1, 0])
    scheduler = baselines.class_priority(rank_0=ranks[0], rank_1=ranks[1])
    result = simulate(scheduler, tasks, kv_blocks=10)
    assert result.requests.preemptions.tolist() == preempted and result.drained


# Task 0 makes two calls, the second one ready at 1 s; task 1 arrives before, task 2 after. One call fits into a batch.
CHAIN = table([0.0, 0.0, 0.5, 1.5], [8] * 4, [1] * 4, task=[0, 0, 1, 2], edges=[(0, 1)])


@pytest.mark.parametrize(
    ("scheduler", "finish"),
    [
        (baselines.sarathi, [1, 3, 2, 4]),
        (baselines.fbfs, [1, 4, 2, 3]),
        (baselines.lbfs, [1, 2, 3, 4]),
        (baselines.plas(quantum=4, starvation=1), [1, 4, 2, 3]),
        (baselines.atlas(quantum=4, starvation=1), [1, 4, 2, 3]),
        (baselines.plas(quantum=16, starvation=1), [1, 3, 2, 4]),
        (baselines.justitia, [1, 2, 3, 4]),
    ],
    ids=str,
)
def test_the_second_call_of_a_task_against_new_tasks(scheduler, finish):
    result = simulate(scheduler, CHAIN, token_budget=8, kv_blocks=100)
    assert result.requests.finish.tolist() == finish


def test_a_starving_call_of_a_served_task_starts_again():
    # New tasks arrive every second; the second call of task 0 has 8 tokens attained and 2 s later its turn.
    arrival = [0.0, 0.0, *(float(t) for t in range(1, 9))]
    tasks = table(arrival, [8] * 10, [1] * 10, task=[0, 0, *range(1, 9)], edges=[(0, 1)])
    patient, spoilt = (
        simulate(baselines.plas(quantum=4, starvation=s), tasks, token_budget=8).requests.finish[1] for s in (9, 0.25)
    )
    assert (patient, spoilt) == (10.0, 4.0)


def test_longest_and_shortest_path_first():
    tasks = table([0.0] * 3, [8, 8, 8], [1, 1, 1], task=[0, 1, 1], edges=[(1, 2)])
    longest = simulate(baselines.critical_path, tasks, token_budget=8)
    shortest = simulate(baselines.critical_path(least_first=1), tasks, token_budget=8)
    assert longest.requests.finish.tolist() == [2, 1, 3]
    assert shortest.requests.finish.tolist() == [1, 2, 3]


def test_fair_finish_order_of_tasks_that_come_together():
    # 20 tokens of prompt cost more KV time than 5: the small task goes first although it is second in the queue.
    tasks = table([0.0, 0.0], [20, 5], [2, 2], predicted_output=[2, 2])
    result = simulate(baselines.justitia, tasks, token_budget=5, kv_blocks=50)
    assert result.requests.finish[1] < result.requests.finish[0]


@pytest.mark.parametrize(("crowd", "finish"), [(0, [1, 2]), (3, [2, 1])])
def test_pressure_falls_with_the_queue_downstream(crowd, finish):
    # At engine 0 a call of class 0, which feeds class 1 at engine 1, and one of class 2, which feeds nothing.
    n = 3 + crowd
    tasks = table(
        [0.0] * n,
        [8] * n,
        [1] * n,
        task=[0, 0, *range(1, n - 1)],
        edges=[(0, 1)],
        klass=[0, 1, 2] + [1] * crowd,
        engine=[0, 1, 0] + [1] * crowd,
    )
    rows = simulate(baselines.max_pressure, tasks, engines=2, token_budget=8).requests
    assert rows.finish[[0, 2]].tolist() == finish
