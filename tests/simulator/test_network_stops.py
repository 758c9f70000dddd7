"""A network goes on where it stopped: nothing that was released at that very moment is forgotten."""

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from baselines.routers import round_robin
from llmsched_env.simulator.loop import DRAINED
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.workloads import RequestTable

ENGINES = 2 * (ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), token_budget=64),)


def two_tasks():
    """Each of a call at engine 0, and when that has finished, one at engine 1, which is idle until then."""
    calls = RequestTable.from_columns(np.repeat([0.0, 7.0], 2), [4] * 4, [2] * 4)
    return TaskTable.from_columns(calls, [0, 0, 1, 1], [(0, 1), (2, 3)], engine=[0, 1, 0, 1])


@pytest.mark.parametrize("rows", range(4, 12))
def test_records_may_grow_just_before_a_released_call_starts(rows):
    simulator = NetworkSimulator(ENGINES, baselines.sarathi, round_robin)
    simulator.load(two_tasks())
    simulator.world = simulator.world._replace(record_batches=simulator.world.record_batches[:rows].copy())
    assert simulator.advance(np.inf) == DRAINED
    assert simulator.result().requests.finish.tolist() == [2.0, 4.0, 9.0, 11.0]


def test_a_call_released_at_the_horizon_is_in_the_rows_and_goes_on_from_there():
    simulator = NetworkSimulator(ENGINES, baselines.sarathi, round_robin)
    simulator.load(two_tasks())
    simulator.advance(2.0)
    requests = simulator.result().requests
    assert requests.arrival.tolist() == [0.0, 2.0]
    assert requests.status.tolist() == ["finished", "active"]
    assert simulator.advance(np.inf) == DRAINED
    assert simulator.result().requests.finish.tolist() == [2.0, 4.0, 9.0, 11.0]
