"""Tasks of agents in a simulated network: what they wait for and what they reuse."""

import numpy as np
import pytest

from baselines import vllm_v1
from baselines.routers import round_robin
from llmsched_env.machine.batch_time import Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.workloads import AgentTasks, CallLaw, Chain, ClosedLoop, ForkJoin, SubAgents, delays, dist

ENGINE = EngineConfig(
    batch_time=Staircase(c=0.01, a=0.01, b0=64), token_budget=256, kv_blocks=4000, prefix_caching=True
)
STEP = CallLaw(dist.Geometric(40), dist.Geometric(8), delays.Exponential(0.3))
LAWS = {
    "chain": Chain(STEP, STEP, dist.Uniform(2, 4)),
    "fork-join": ForkJoin(STEP, STEP, STEP, dist.Uniform(1, 3), 2),
    "sub-agents": SubAgents(Chain(STEP, STEP, 3), Chain(STEP, STEP, 2), 2, 0.5),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_calls_begin_their_delay_after_the_last_call_before_them(law):
    source = AgentTasks(law, rate=2.0, horizon=5.0)
    table = source.sample(0)
    result = simulate_network(vllm_v1, source, [ENGINE] * 2, round_robin, interpreted=True)
    rows = result.requests
    assert len(rows) == len(table) and (rows.status == "finished").all()
    ready = table.calls.arrival.copy()
    for before, after in table.edges.tolist():
        ready[after] = max(ready[after], rows.finish[before])
    assert rows.arrival == pytest.approx(ready + table.delay)
    assert (result.tasks.finished == result.tasks.calls).all()


def test_a_chain_alone_on_its_engine_computes_every_token_once():
    table = AgentTasks(Chain(STEP, STEP, 6), rate=0.2, horizon=20.0).sample(1)
    rows = simulate_network(vllm_v1, table, [ENGINE], round_robin, interpreted=True).requests
    # What a call's parent holds at its end is all but its last token; full blocks of it are found again.
    size = ENGINE.block_size
    parent = table.calls.parent
    held = np.where(parent < 0, 0, table.calls.prompt_tokens[parent] + table.calls.output_tokens[parent] - 1)
    assert rows.prefix_hit.tolist() == (held // size * size).tolist()


def test_users_of_a_closed_loop_are_never_twice_in_the_system():
    loop = ClosedLoop(Chain(STEP, STEP, 2), users=3, think=delays.Exponential(1.0), horizon=8.0)
    rows = simulate_network(vllm_v1, loop, [ENGINE], round_robin, horizon=8.0, interpreted=True).requests
    for user in range(3):
        mine = np.sort(rows[rows.client == user], order="arrival")
        assert len(mine) > 4 and (mine["arrival"][1:] >= mine["finish"][:-1]).all()
