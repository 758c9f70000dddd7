"""The search finds the best constant action: of the knobs, of arms, of a box."""

from itertools import product

import numpy as np
import pytest

import llmsched_env as ls
from agents.problems.constant_action import BestConstant, best_constant, neutral_action, scheduler_of
from agents.problems.judge import Judge
from llmsched_env.envs.actions import Arms
from llmsched_env.envs.batch_queue import ORDERS, Knobs, parametric
from llmsched_env.envs.index_policy import IndexNumbers
from llmsched_env.evaluation.cases import Cases
from llmsched_env.objectives import OBJECTIVES

KNOBS = Knobs((64, 128, 256), (float("inf"),))


@pytest.fixture
def cases(small):
    workloads = tuple(small["workload"].at_load(load, small["engine"]) for load in (0.7, 1.1))
    return Cases(workloads, (1, 2, 3), small["engine"])


@pytest.mark.parametrize("objective", ["mean_e2el", "slo_attainment"])
def test_the_winner_is_the_best_of_all_settings(cases, objective):
    objective = OBJECTIVES[objective]
    best = best_constant(KNOBS, Judge.on(cases, objective), 1)
    everything = {
        (budget, order): np.mean(
            [
                ls.simulate(
                    parametric(token_budget=budget, order=ORDERS.index(order)), w, cases.engine, seed=s
                ).summary()[objective.metric]
                for w in cases.workloads
                for s in cases.seeds
            ]
        )
        for budget, order in product(KNOBS.token_budgets, ORDERS)
    }
    budget, order = best.scheduler.values["token_budget"], ORDERS[int(best.scheduler.values["order"])]
    assert everything[int(budget), order] == pytest.approx(best.value)
    assert objective.score(best.value) == pytest.approx(max(map(objective.score, everything.values())))
    assert best.scheduler.name == "static_best"
    assert best.action.tolist() == KNOBS.encode(budget, float("inf"), order).tolist()
    assert "best of 12 constant actions" in best.note and (order == "fcfs" or f"order={order}" in best.note)


def test_an_obvious_optimum_is_found():
    """A long prompt and two short ones at once, one output token each, batches of one second whatever is in them.

    With a budget of 100 first come first served takes the long prompt in the first batch and the others in the second:
    latencies 1, 2, 2 s. Shortest first takes the others and 80 tokens of the long one, then the rest: 1, 1, 2 s.
    """
    engine = ls.EngineConfig(ls.Hinge(c=1.0, a=0.0, b0=1000))
    workload = ls.Workload.from_arrays([0.0, 0.0, 0.0], [100, 10, 10], [1, 1, 1])
    judge = Judge.on(Cases((workload,), (0,), engine), OBJECTIVES["mean_e2el"])
    best = best_constant(Knobs((10, 100), (float("inf"),)), judge, 1)
    assert best.scheduler.values["token_budget"] == 100
    assert ORDERS[int(best.scheduler.values["order"])] == "shortest_prompt"
    assert best.value == pytest.approx(4000 / 3)


def test_runs_of_cases_are_those_of_simulate(cases):
    scheduler = parametric(token_budget=64)
    rows = cases.map([scheduler], lambda result: result.requests.tobytes())[0]
    expected = [
        ls.simulate(scheduler, w, cases.engine, seed=s).requests.tobytes() for w in cases.workloads for s in cases.seeds
    ]
    assert rows == expected


def test_a_box_is_searched_from_its_neutral_point(cases):
    numbers, judge = IndexNumbers(), Judge.on(cases.first(1), OBJECTIVES["slo_attainment"])
    neutral = neutral_action(numbers)
    [start] = judge.values([scheduler_of(numbers, neutral, "neutral")])
    best = best_constant(numbers, judge, 8)
    assert best.value >= start and len(best.finalists) == 8
    assert numbers.space.contains(best.action)
    assert judge.values([scheduler_of(numbers, best.action, "again")]) == [best.value]
    assert best.action.tolist() == best_constant(numbers, judge, 8).action.tolist()


def test_of_arms_all_are_tried(cases):
    arms = Arms(KNOBS, [KNOBS.encode(64, order=order).tolist() for order in ORDERS])
    judge = Judge.on(cases, OBJECTIVES["mean_e2el"])
    best = best_constant(arms, judge, 1)
    values = judge.values([scheduler_of(arms, np.array(k), "arm") for k in range(len(ORDERS))])
    assert best.value == min(values) and values[int(best.action)] == best.value


def test_what_was_found_is_read_again(cases):
    best = best_constant(KNOBS, Judge.on(cases.first(1), OBJECTIVES["mean_e2el"]), 1)
    again = BestConstant.from_record(best.record(), KNOBS)
    assert again.scheduler == best.scheduler and again.note == best.note and again.value == best.value
    assert [a.tolist() for a in again.finalists] == [a.tolist() for a in best.finalists]


def test_the_neutral_setting_of_knobs_is_the_default_where_it_is_a_level():
    assert neutral_action(KNOBS) is None
    known = Knobs((256, 512), (64, float("inf")))
    assert scheduler_of(known, neutral_action(known), "neutral").param_values().tolist() == (
        parametric.param_values().tolist()
    )
