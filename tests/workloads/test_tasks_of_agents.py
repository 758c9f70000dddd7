"""Tasks drawn from laws: graphs by hand, prompts that hold their context, statistics, closed loops."""

import math

import numpy as np
import pytest

from llmsched_env.machine.batch_time import Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.slo import SLO
from llmsched_env.tables.request_table import COLUMNS
from llmsched_env.theory import task_capacity
from llmsched_env.workloads import (
    AgentTasks,
    CallLaw,
    Chain,
    ClosedLoop,
    ForkJoin,
    Gamma,
    Graph,
    SubAgents,
    TaskKind,
    delays,
    dist,
    route,
    rybko_stolyar,
)

FIRST = CallLaw(dist.Geometric(300), dist.Geometric(50), system_tokens=20)
LATER = CallLaw(dist.Geometric(80), dist.Geometric(50), delays.Exponential(3.0), klass=1)
LAWS = {
    "chain": Chain(FIRST, LATER, dist.Geometric(5)),
    "fork-join": ForkJoin(FIRST, LATER, CallLaw(7, 9, klass=2), dist.Uniform(1, 5), dist.Uniform(1, 3)),
    "sub-agents": SubAgents(Chain(FIRST, LATER, dist.Geometric(5)), Chain(LATER, LATER, dist.Geometric(3)), 2, 0.4),
    "route": route(FIRST, LATER, CallLaw(5, 5, engine=2)),
    "graph": Graph([FIRST, FIRST, LATER, LATER], [(0, 2), (1, 2), (0, 3), (2, 3)], [None, None, 0, 2]),
}


def drawn(law, tasks=3, seed=0):
    return law.draw(np.random.SeedSequence(seed), tasks)


def pairs(edges):
    return sorted(map(tuple, edges.tolist()))


def test_a_chain_grows_by_output_and_new_tokens():
    calls = drawn(Chain(CallLaw(100, 10), CallLaw(5, 20, delay=1.5, klass=1), 3), tasks=2)
    assert calls.task.tolist() == [0, 0, 0, 1, 1, 1]
    assert calls.prompt_tokens.tolist() == [100, 115, 140] * 2
    assert calls.shared_tokens.tolist() == [0, 110, 135] * 2
    assert calls.parent.tolist() == [-1, 0, 1, -1, 3, 4]
    assert calls.delay.tolist() == [0.0, 1.5, 1.5] * 2 and calls.klass.tolist() == [0, 1, 1] * 2
    assert pairs(calls.edges) == [(0, 1), (1, 2), (3, 4), (4, 5)]


def test_branches_share_the_context_of_the_fork_and_hand_their_results_to_the_join():
    calls = drawn(ForkJoin(CallLaw(100, 10), CallLaw(5, 20), CallLaw(1, 2), width=2, depth=2), tasks=1)
    assert pairs(calls.edges) == [(0, 1), (0, 3), (0, 5), (1, 2), (2, 5), (3, 4), (4, 5)]
    assert calls.parent.tolist() == [-1, 0, 1, 0, 3, 0]
    # The join: context of the fork (110), the outputs of both branches' last calls (40), one new token.
    assert calls.prompt_tokens.tolist() == [100, 115, 140, 115, 140, 151]
    assert calls.shared_tokens.tolist() == [0, 110, 135, 110, 135, 110]


def test_sub_agents_begin_anew_and_their_caller_waits():
    law = SubAgents(Chain(CallLaw(100, 10), CallLaw(5, 20), 3), Chain(CallLaw(50, 7), CallLaw(2, 3), 2), width=2)
    calls = drawn(law, tasks=1)
    assert pairs(calls.edges) == sorted(
        [(0, 1), (1, 2), (2, 5), (0, 3), (3, 4), (4, 5), (0, 5)]
        + [(5, 6), (6, 7), (7, 10), (5, 8), (8, 9), (9, 10), (5, 10)]
    )
    assert calls.parent.tolist() == [-1, -1, 1, -1, 3, 0, -1, 6, -1, 8, 5]
    helper = [50, 59]
    assert calls.prompt_tokens.tolist() == [100, *helper, *helper, 121, *helper, *helper, 121 + 20 + 6 + 5]
    alone = drawn(SubAgents(law.agent, law.helper, width=2, share=0.0), tasks=2)
    assert pairs(alone.edges) == [(0, 1), (1, 2), (3, 4), (4, 5)]


def test_a_route_has_an_engine_and_sizes_of_its_own_at_each_call():
    calls = drawn(route(CallLaw(30, 4, engine=1), CallLaw(10, 6, klass=3), CallLaw(20, 5, engine=0)), tasks=1)
    assert calls.engine.tolist() == [1, -1, 0] and calls.klass.tolist() == [0, 3, 0]
    assert calls.prompt_tokens.tolist() == [30, 10, 20] and calls.shared_tokens.tolist() == [0, 0, 0]
    kept = drawn(route(CallLaw(30, 4), CallLaw(10, 6), keeps_context=True), tasks=1)
    assert kept.prompt_tokens.tolist() == [30, 44] and kept.shared_tokens.tolist() == [0, 34]


@pytest.mark.parametrize("name", [name for name in LAWS if name != "route"])
def test_prompts_hold_context_results_and_new_tokens(name):
    calls = drawn(LAWS[name], tasks=60)
    prompt, output, parent = calls.prompt_tokens, calls.output_tokens, calls.parent
    before = {i: [] for i in range(len(prompt))}
    for a, b in calls.edges.tolist():
        before[b].append(a)
    goes_on = np.flatnonzero(parent >= 0)
    assert len(goes_on)
    for i in goes_on.tolist():
        assert parent[i] in before[i]
        results = sum(output[j] for j in before[i] if j != parent[i])
        assert calls.shared_tokens[i] == prompt[parent[i]] + output[parent[i]]
        assert prompt[i] > calls.shared_tokens[i] + results  # at least one new token
    assert (calls.shared_tokens[parent < 0] == 0).all()


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_tables_are_a_function_of_the_seed(law):
    source = AgentTasks(law, rate=2.0, horizon=30.0)
    a, b, other = source.sample(3), source.sample(3), source.sample(4)
    for name in COLUMNS:
        assert np.array_equal(getattr(a.calls, name), getattr(b.calls, name), equal_nan=True), name
    for name in ("task", "delay", "engine", "edges"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert not np.array_equal(a.calls.prompt_tokens, other.calls.prompt_tokens)
    assert a.calls.horizon == 30.0 and a.calls.arrival.max() < 30.0
    assert np.array_equal(a.calls.session, a.task)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_task_i_is_the_same_however_many_there_are(law):
    few, many = drawn(law, tasks=10), drawn(law, tasks=40)
    n = len(few.task)
    for name in few._fields:
        if name != "edges":
            assert np.array_equal(getattr(few, name), getattr(many, name)[:n]), name
    assert pairs(few.edges) == pairs(many.edges[(many.edges < n).all(axis=1)])


def test_calls_that_begin_anew_share_the_system_prompt_of_their_law():
    law = Chain(CallLaw(dist.Uniform(10, 60), 5, system_tokens=30), CallLaw(8, 5), 2)
    calls = AgentTasks((TaskKind(law), TaskKind(law, weight=2.0)), rate=5.0, horizon=20.0).sample(0).calls
    first = np.arange(0, len(calls), 2)
    for kind in (0, 1):
        mine = first[calls.client[first] == kind]
        model = mine[0]
        assert calls.parent[model] == -1 and (calls.parent[mine[1:]] == model).all()
        expected = np.minimum(30, np.minimum(calls.prompt_tokens[mine[1:]], calls.prompt_tokens[model]))
        assert np.array_equal(calls.shared_tokens[mine[1:]], expected)
    assert np.array_equal(calls.parent[first + 1], first)


def test_means_are_those_of_the_laws():
    source = AgentTasks(Chain(FIRST, LATER, dist.Geometric(5)), rate=40.0, horizon=100.0)
    table = source.sample(0)
    counts = np.bincount(table.task)
    later = table.hops() > 0
    new = (table.calls.prompt_tokens - table.calls.shared_tokens)[later]
    for values, mean in (
        (counts, 5.0),
        (new, 80.0),
        (table.calls.output_tokens, 50.0),
        (table.delay[later], 3.0),
        (table.calls.prompt_tokens[~later], 300.0),
    ):
        assert abs(values.mean() - mean) <= 4.5 * values.std() / math.sqrt(len(values))
    tasks = np.array([source.scaled(4.0).sample(seed).num_tasks for seed in range(30)])
    assert abs(tasks.mean() - 400) <= 4.5 * math.sqrt(400 / 30)


def test_kinds_have_their_shares_and_arrivals():
    kinds = (TaskKind(LAWS["chain"], 3.0), TaskKind(LAWS["route"], 1.0, Gamma(3.0)))
    table = AgentTasks(kinds, rate=20.0, horizon=1000.0).sample(0)
    first = np.flatnonzero(table.hops() == 0)
    arrival, kind = table.calls.arrival[first], table.calls.client[first]
    assert (np.diff(arrival) >= 0).all()
    for k, rate, cv in ((0, 15.0, 1.0), (1, 5.0, 3.0)):
        gaps = np.diff(arrival[kind == k])
        assert gaps.mean() == pytest.approx(1 / rate, rel=4.5 * cv / math.sqrt(len(gaps)))
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)
    assert set(table.engine[table.calls.client == 1]) == {-1, 2}


def test_targets_and_predictions_reach_every_call():
    def predictor(rng, prompt, output):
        return output * rng.uniform(0.5, 1.5, len(output))

    source = AgentTasks(LAWS["chain"], 2.0, 30.0, slo=SLO(ttft=2.0, tpot=0.1))
    plain, predicted = source.sample(0), AgentTasks(LAWS["chain"], 2.0, 30.0, predictor=predictor).sample(0)
    assert set(plain.calls.ttft_slo) == {2.0} and set(plain.calls.tpot_slo) == {0.1}
    assert np.isnan(plain.calls.predicted_output).all()
    assert np.array_equal(plain.calls.output_tokens, predicted.calls.output_tokens)
    ratio = predicted.calls.predicted_output / predicted.calls.output_tokens
    assert ratio.min() >= 0.5 and ratio.max() <= 1.5 and ratio.std() > 0.2


def test_episodes_are_fresh_and_as_long_as_asked():
    source = AgentTasks(LAWS["chain"], 5.0, 1000.0)
    rng = np.random.default_rng(0)
    a, b = source.episode(rng, 20.0), source.episode(rng, 20.0)
    assert a.calls.horizon == b.calls.horizon == 20.0 and max(a.arrival[-1], b.arrival[-1]) < 20.0
    assert not np.array_equal(a.arrival, b.arrival)


def test_users_of_a_closed_loop_think_between_tasks():
    law = ForkJoin(CallLaw(100, 10), CallLaw(5, 20), CallLaw(1, 2), width=2)
    table = ClosedLoop(law, users=7, think=delays.Exponential(5.0), horizon=60.0).sample(0)
    assert table.num_tasks == 7 and (table.calls.arrival == 0).all()
    assert np.array_equal(table.calls.client, table.task)
    waits = np.zeros(len(table), int)
    np.add.at(waits, table.edges[:, 1], 1)
    rounds = table.calls.session
    for user in range(7):
        mine = np.flatnonzero(table.task == user)
        forks, joins = mine[::4], mine[3::4]
        assert len(mine) % 4 == 0 and len(set(rounds[mine].tolist())) == len(forks)
        assert pairs(table.edges[np.isin(table.edges[:, 1], forks)]) == list(
            zip(joins[:-1].tolist(), forks[1:].tolist(), strict=True)
        )
        assert table.delay[mine].sum() > 60.0 >= table.delay[forks[:-1]].sum()
        assert (table.delay[forks] > 0).all()


def test_bad_closed_loops():
    with pytest.raises(ValueError, match="users must be an integer >= 1, got 0"):
        ClosedLoop(LAWS["chain"], 0, 1.0, 10.0)
    with pytest.raises(ValueError, match="think must be so long that 1000000 tasks fill the horizon"):
        ClosedLoop(LAWS["chain"], 1, 0.0, 10.0)
    loop = ClosedLoop(LAWS["chain"], 1, 1.0, 10.0)
    assert math.isnan(loop.rate)
    with pytest.raises(ValueError, match="the rate of a closed loop cannot be set"):
        loop.scaled(2.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CallLaw(0, 5), r"new_tokens must be an integer >= 1 \(tokens\), got 0"),
        (lambda: CallLaw(5, "x"), "output_tokens must be an integer >= 1 or a distribution"),
        (lambda: CallLaw(5, 5, delay=-1.0), r"delay must be a number >= 0 \(s\) or a law of llmsched_env.delays"),
        (lambda: CallLaw(5, 5, delay=math.inf), "delay must be a number >= 0"),
        (lambda: CallLaw(5, 5, engine=-1), "engine must be an integer >= 0, got -1"),
        (lambda: Graph([]), "calls must hold at least one CallLaw, got none"),
        (lambda: Graph([FIRST] * 2, [(1, 0)]), r"edges must be pairs .* 0 <= before < after < 2, got \(1, 0\)"),
        (lambda: Graph([FIRST] * 2, [(0, 1), (0, 1)]), "edges must be distinct"),
        (lambda: Graph([FIRST] * 2, [], [None, 0]), r"context\[1\] must be None or a call with an edge to 1, got 0"),
        (lambda: Graph([FIRST] * 2, [], [None]), "context must have one entry per call, that is 2, got 1"),
        (lambda: Chain(FIRST, LATER, 0), "calls must be an integer >= 1"),
        (lambda: SubAgents(LAWS["chain"], LAWS["chain"], 1, 1.5), "share must be a finite number >= 0 and <= 1"),
        (lambda: TaskKind(LAWS["chain"], 0.0), "weight must be a finite number > 0"),
        (lambda: AgentTasks((), 1.0, 1.0), "kinds must be a law of tasks or at least one TaskKind"),
        (lambda: AgentTasks(LAWS["chain"], 0.0, 1.0), r"rate must be a finite number > 0 \(tasks/s\), got 0"),
        (lambda: AgentTasks(LAWS["chain"], 1.0, math.inf), "horizon must be a finite number > 0"),
        (lambda: rybko_stolyar(load=0.0), "load must be a finite number > 0"),
        (lambda: delays.Exponential(0.0), "Exponential mean must be a finite number > 0"),
        (lambda: delays.table([0, 100], [1.0]), "as many levels as seconds"),
        (lambda: delays.table([0, 100], [2.0, 1.0]), "seconds must not decrease"),
        (lambda: delays.table([10, 100], [0.0, 1.0]), "levels must reach from 0 to 100"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_laws_of_delays():
    u = (np.arange(200_000) + 0.5) / 200_000
    assert delays.Exponential(4.0).quantile(u).mean() == pytest.approx(4.0, rel=1e-3)
    lognormal = delays.LogNormal(2.0, 0.5).quantile(u)
    assert np.median(lognormal) == pytest.approx(2.0, rel=1e-4)
    assert lognormal.mean() == pytest.approx(2.0 * math.exp(0.125), rel=1e-3)
    table = delays.table([0, 50, 100], [0.0, 1.0, 4.0])
    assert table.quantile(np.array([0.25, 0.5, 0.75])).tolist() == [0.5, 1.0, 2.0]


def test_rybko_and_stolyars_types_cross_and_load_both_engines_alike():
    source = rybko_stolyar(load=0.9, horizon=2000.0)
    table = source.sample(0)
    klass, calls = table.calls.klass, table.calls
    assert set(zip(klass.tolist(), table.engine.tolist(), strict=True)) == {(0, 0), (1, 1), (2, 1), (3, 0)}
    assert pairs(table.edges) == [(i, i + 1) for i in range(0, len(table), 2)]
    assert (calls.parent == -1).all()
    for k, mean in ((0, 32), (1, 512), (2, 32), (3, 512)):
        for column, rate in ((calls.prompt_tokens, mean), (calls.output_tokens, 32)):
            own = column[klass == k]
            assert abs(own.mean() - rate) <= 4.5 * math.sqrt(rate / len(own)) and own.min() >= 1
            assert own.var() == pytest.approx(rate, rel=0.2)
    arrived = np.bincount(klass[::2], minlength=3)[[0, 2]] / 2000.0
    assert arrived == pytest.approx(0.9 * 768 / 608, abs=4.5 * math.sqrt(1.14 / 2000))
    engine = EngineConfig(Staircase(c=1.0, a=0.0, b0=768), token_budget=768, first_token="separate")
    assert 0.9 * task_capacity((engine, engine), source.representative()) == pytest.approx(source.rate, rel=0.01)
