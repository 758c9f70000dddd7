"""Users in a closed loop whose tasks are drawn as they are needed."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import llmsched_env as ls
from baselines import vllm_v1
from baselines.routers import round_robin
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.simulate import simulate, simulate_network
from llmsched_env.simulator.snapshot import clone_network, restore_network
from llmsched_env.tables.request_table import COLUMNS
from llmsched_env.workloads import (
    CallLaw,
    Chain,
    ClosedLoop,
    ForkJoin,
    LengthPredictor,
    SingleCalls,
    TaskKind,
    Workload,
    closed_loop,
    delays,
    dist,
)

SECOND = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=10**6), token_budget=1)  # a request of one token in a second
ENGINE = ls.EngineConfig(ls.Staircase(c=0.01, a=0.01, b0=64), token_budget=256, kv_blocks=400, prefix_caching=True)
CHAT = Workload.poisson(1.0, dist.Geometric(60), dist.Geometric(9), horizon=10.0, slo=ls.SLO(ttft=1.0, tpot=0.1))
ONE = Workload.from_arrays([0.0], [1], [1])


def run(loop, engines=(ENGINE, ENGINE), seed=0, **more):
    return simulate_network(vllm_v1, loop, engines, round_robin, seed, interpreted=True, **more)


def test_without_think_times_every_user_always_has_one_request_and_whoever_is_free_sends_the_next():
    result = simulate(vllm_v1, ClosedLoop(lengths=CHAT, users=3), ENGINE, horizon=6.0, interpreted=True)
    rows = result.requests
    assert set(result.number_in_system(np.linspace(0.0, 5.99, 500))) == {3}
    ends = np.sort(rows.finish[rows.status == "finished"])
    assert len(ends) > 20 and rows.arrival.tolist() == [0.0] * 3 + ends.tolist()
    for user in range(3):
        mine = rows[rows.client == user]
        assert (mine.arrival[1:] == mine.finish[:-1]).all()


def test_one_engine_of_one_second_a_request_serves_users_in_turn():
    rows = simulate(vllm_v1, ClosedLoop(lengths=ONE, users=4), SECOND, horizon=9.5, interpreted=True).requests
    assert rows.arrival.tolist() == [0.0] * 4 + list(range(1, 10))
    assert rows.client.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert (rows.finish - rows.arrival)[3:9].tolist() == [4.0] * 6  # users times the time of a request


def test_thinking_users_come_back_after_their_think_times():
    rows = simulate(
        vllm_v1, ClosedLoop(lengths=ONE, users=2, think=3.0), SECOND, horizon=12.5, interpreted=True
    ).requests
    assert rows.arrival.tolist() == [3.0, 3.0, 7.0, 8.0, 11.0, 12.0]


@pytest.mark.parametrize(
    "loop",
    [
        ClosedLoop(lengths=CHAT.with_predictor(LengthPredictor(0.5)), users=7, think=delays.Exponential(0.2)),
        ClosedLoop(ForkJoin(CallLaw(30, 4), CallLaw(9, dist.Geometric(9)), CallLaw(5, 2), 2), users=5),
    ],
    ids=["requests", "graphs"],
)
def test_rows_do_not_depend_on_how_many_tasks_are_drawn_at_once(loop, monkeypatch):
    engines = (replace(ENGINE, kv_blocks=20_000),) * 2
    whole = run(loop, engines, horizon=6.0)
    monkeypatch.setattr(closed_loop, "_FIRST_TASKS", 1)
    monkeypatch.setattr(closed_loop, "STARTS_AHEAD", 4)
    little_by_little = run(loop, engines, horizon=6.0)
    assert loop.sample(0).num_tasks < len(whole.tasks)
    for table in ("requests", "tasks", "batches"):
        a, b = getattr(whole, table), getattr(little_by_little, table)
        assert all(np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f") for name in a.dtype.names)


@pytest.mark.parametrize(
    "source",
    [
        ls.task_preset("azure-chat"),
        ls.task_preset("coding-agent"),
        ls.AgentTasks([TaskKind(Chain(CallLaw(30, 4, system_tokens=9), CallLaw(9, 4), dist.Uniform(1, 5)), weight)
                       for weight in (1.0, 2.0)], 1.0, 1.0, predictor=LengthPredictor(0.5)),
        SingleCalls(ls.preset("multi-tenant").with_predictor(LengthPredictor(0.5))),
    ],
    ids=["requests", "sessions", "kinds", "predicted"],
)  # fmt: skip
def test_more_tasks_begin_with_the_same_ones(source):
    few, many = source.in_order(3, 40), source.in_order(3, 700)
    assert few.num_tasks == 40 and many.num_tasks == 700 and (many.calls.arrival == 0).all()
    n = len(few)
    for name in COLUMNS:
        assert np.array_equal(getattr(few.calls, name), getattr(many.calls, name)[:n], equal_nan=True), name
    for name in ("task", "delay", "engine"):
        assert np.array_equal(getattr(few, name), getattr(many, name)[:n])
    kept = many.edges[many.edges[:, 1] < n]
    assert sorted(map(tuple, few.edges.tolist())) == sorted(map(tuple, kept.tolist()))


def test_tasks_are_the_same_for_any_number_of_users():
    few, many = (run(ClosedLoop(lengths=CHAT, users=n), horizon=6.0).requests for n in (3, 9))
    n = len(few)
    assert len(many) >= n > 30
    assert few.prompt_tokens.tolist() == many.prompt_tokens[:n].tolist()
    assert few.ttft_slo.tolist() == [1.0] * n
    assert (
        few.prompt_tokens.tolist()
        != run(ClosedLoop(lengths=CHAT, users=3), seed=1, horizon=6.0).requests[:n].prompt_tokens.tolist()
    )


def test_a_trace_is_sent_in_its_order_over_and_over_or_so_many_requests_of_it():
    trace = Workload.from_arrays([0.0, 5.0, 9.0], [3, 20, 7], [2, 1, 4], parent=[-1, 0, -1], shared_tokens=[0, 3, 0])
    rows = simulate(vllm_v1, ClosedLoop(lengths=trace, users=2, tasks=8), ENGINE, interpreted=True).requests
    assert rows.prompt_tokens.tolist() == [3, 20, 7, 3, 20, 7, 3, 20] and (rows.status == "finished").all()
    table = ClosedLoop(lengths=trace, users=2, tasks=8).sample(0).calls
    assert table.parent.tolist() == [-1, 0, -1, -1, 3, -1, -1, 6]
    again = simulate(vllm_v1, ClosedLoop(lengths=trace.sample(0), users=2, tasks=8), ENGINE, interpreted=True).requests
    assert again.finish.tolist() == rows.finish.tolist()


def test_with_a_duration_users_stop_and_the_run_drains():
    result = run(ClosedLoop(lengths=CHAT, users=5, think=0.1, duration=3.0))
    assert result.drained and len(result.requests) > 20
    assert result.requests.arrival.max() < 3.0 <= result.end
    late = run(ClosedLoop(lengths=CHAT, users=5, think=3.0, duration=3.0))
    assert len(late.requests) == len(late.tasks) == 0


def test_a_pool_of_agents_has_so_many_sessions_at_any_time_that_reuse_their_contexts():
    law = Chain(CallLaw(64, 8), CallLaw(20, 8, delays.Exponential(0.3)), 4)
    result = run(ClosedLoop(law, users=6), (replace(ENGINE, kv_blocks=4000),) * 2, horizon=10.0)
    tasks = result.tasks
    open_now = lambda t: np.count_nonzero((tasks.arrival <= t) & ~(tasks.finish <= t))  # noqa: E731
    assert len(tasks) > 20 and {open_now(t) for t in np.linspace(0, 9.99, 200)} == {6}
    assert np.allclose(np.sort(tasks.arrival)[6:], np.sort(tasks.finish[~np.isnan(tasks.finish)]))
    assert (tasks.calls == 4).all() and result.requests.prefix_hit.sum() > 0
    for task in range(len(tasks)):
        assert len(set(result.requests.client[result.requests.task == task])) == 1


def test_users_go_on_after_requests_that_no_engine_can_hold():
    sizes = Workload.from_arrays([0.0, 1.0], [30, 10_000], [5, 5])
    rows = simulate(vllm_v1, ClosedLoop(lengths=sizes, users=2), ENGINE, horizon=2.0, interpreted=True).requests
    assert len(rows) > 20 and set(rows.status[rows.arrival < 1.0]) == {"finished", "rejected"}
    with pytest.raises(
        ValueError, match="must fit on the engines, got .* in a row up to 0 s that were rejected at once"
    ):
        too_long = Workload.from_arrays([0.0], [10_000], [5])
        simulate(vllm_v1, ClosedLoop(lengths=too_long, users=2), ENGINE, horizon=2.0, interpreted=True)


def test_a_run_goes_on_from_a_copy_taken_before_more_tasks_were_drawn():
    simulator = NetworkSimulator((ENGINE,), vllm_v1, round_robin, interpreted=True)
    simulator.load(ClosedLoop(lengths=CHAT, users=40).sample(0))
    simulator.advance(2.0)
    copy, until = clone_network(simulator), 2.0
    while simulator.tasks is copy.tasks:
        until += 0.5
        simulator.advance(until)
    finish = [simulator.result().requests.finish.tolist()]
    for _ in range(2):  # more tasks are drawn, the second time at the very moment of the first
        restore_network(simulator, copy)
        simulator.advance(until)
        finish.append(simulator.result().requests.finish.tolist())
        assert simulator.tasks is not copy.tasks and np.array_equal(finish[0], finish[-1], equal_nan=True)


@pytest.mark.slow
def test_a_thousand_users_for_an_hour_on_four_engines_take_less_than_a_gibibyte():
    script = """
import resource
import llmsched_env as ls
from baselines import vllm_v1
from baselines.routers import join_shortest_queue
loop = ls.ClosedLoop(lengths=ls.preset("azure-chat"), users=1000)
engines = [ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic")] * 4
rows = ls.simulate_network(vllm_v1, loop, engines, join_shortest_queue, horizon=3600.0).requests
print(len(rows), int((rows.status == "active").sum()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    requests, active, kibibytes = map(int, ran.stdout.split())
    assert requests > 300_000 and active == 1000 and kibibytes < 2**20


def test_what_is_refused():
    law = Chain(CallLaw(30, 4), CallLaw(9, 4), 2)
    for arguments, message in (
        ({"lengths": CHAT}, "users must be an integer >= 1, got 0"),
        ({"users": 2}, "one of law and lengths must be given"),
        ({"law": law, "lengths": CHAT, "users": 2}, "one of law and lengths must be given"),
        ({"lengths": 12, "users": 2}, "lengths must be a Workload or a RequestTable, got 12"),
        ({"lengths": CHAT, "users": 2, "think": -1.0}, "think must be .* got -1.0"),
        ({"lengths": CHAT, "users": 2, "duration": 0.0}, "duration must be .* got 0"),
        ({"lengths": CHAT, "users": 2, "tasks": 0}, "tasks must be .* got 0"),
        ({"lengths": CHAT, "users": 2, "horizon": 5.0}, "lengths must be None with horizon=5"),
        (
            {"law": law, "users": 2, "think": 1.0, "horizon": 5.0, "duration": 3.0},
            "duration must be None with horizon=5",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            ClosedLoop(**arguments)
    with pytest.raises(ValueError, match="horizon must be a number of seconds for a closed loop without a duration"):
        simulate(vllm_v1, ClosedLoop(lengths=CHAT, users=2), ENGINE, interpreted=True)
    with pytest.raises(ValueError, match="kv_blocks must be a number for prefix caching in a closed loop, got None"):
        run(ClosedLoop(lengths=CHAT, users=2), (replace(ENGINE, kv_blocks=None),), horizon=2.0)
