"""Parameters and memory read by name, compiled and interpreted."""

from math import inf

import pytest

import llmsched_env as ls
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import client_memory, engine_memory, numbered, params_of, request_memory
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulator import Simulator

PARAMS = {"budget": ls.Param(7, 0, 9), **{name: ls.Param(k, 0, 9) for k, name in enumerate(numbered("limit", 3))}}
REQUEST, CLIENT, ENGINE = ("key", "seen"), ("counter",), ("since", *numbered("count", 3), "last")
params, own, clients = params_of(PARAMS, arrays=("limit",)), request_memory(REQUEST), client_memory(CLIENT)
memory = engine_memory(ENGINE, arrays=("count",))


@compiled
def compose(view):
    p, m = params(view), memory(view)
    for i in view.waiting:
        own(view).seen[i] = p.budget
        clients(view).counter[view.req.client[i]] += p.limit[2]
        m.count[view.req.klass[i]] += p.limit[1]
        ls.chunk(view, i, ls.ALL)
    ls.decodes(view, view.running)
    m.since = view.clock
    m.last = len(m.count)
    return inf


@pytest.mark.parametrize("interpreted", [False, True])
def test_names_lead_to_their_places(interpreted):
    scheduler = Scheduler(
        "named", compose, params=PARAMS, memory={"request": REQUEST, "client": CLIENT, "engine": ENGINE}
    )
    requests = ls.Workload.from_arrays([0.0, 0.0, 1.0], [1, 2, 3], [1, 1, 1], client=[0, 1, 1], klass=[0, 2, 2])
    engine = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=8))
    simulator = Simulator(engine, scheduler(limit_1=4), interpreted=interpreted)
    simulator.load(0, requests.sample(0))
    simulator.advance(0, inf)
    world = simulator.world
    assert world.request_memory[:3].tolist() == [[0.0, 7.0]] * 3
    assert world.client_memory[0, :2].tolist() == [[2.0], [4.0]]
    assert world.engine_memory[0].tolist() == [1.0, 4.0, 0.0, 8.0, 3.0]


def test_numbers_of_one_array_stand_together():
    assert numbered("begin", 3, first=2) == ("begin_2", "begin_3", "begin_4")
    with pytest.raises(ValueError, match="count_1 must follow the other names of the array 'count'"):
        engine_memory(("count_0", "since", "count_1"), arrays=("count",))


@pytest.mark.parametrize("name", ["mean", "size"])
def test_names_that_numpy_has_taken_are_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' cannot name a field"):
        params_of((name,))
