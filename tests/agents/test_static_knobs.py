"""The search finds the best fixed setting of the knobs."""

from itertools import product

import numpy as np
import pytest

import llmsched_env as ls
from agents.problems.static_knobs import tune_static
from llmsched_env.envs.batch_queue import ORDERS, Knobs, parametric
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
    best = tune_static(cases, KNOBS, objective)
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
    assert everything[best.token_budget, best.order] == pytest.approx(best.value)
    assert objective.score(best.value) == pytest.approx(max(map(objective.score, everything.values())))
    assert best.scheduler.name == "static_best"
    assert f"token_budget={best.token_budget}, order={best.order}" in best.note


def test_an_obvious_optimum_is_found():
    """A long prompt and two short ones at once, one output token each, batches of one second whatever is in them.

    With a budget of 100 first come first served takes the long prompt in the first batch and the others in the second:
    latencies 1, 2, 2 s. Shortest first takes the others and 80 tokens of the long one, then the rest: 1, 1, 2 s.
    """
    engine = ls.EngineConfig(ls.Hinge(c=1.0, a=0.0, b0=1000))
    workload = ls.Workload.from_arrays([0.0, 0.0, 0.0], [100, 10, 10], [1, 1, 1])
    best = tune_static(Cases((workload,), (0,), engine), Knobs((10, 100), (float("inf"),)), OBJECTIVES["mean_e2el"])
    assert (best.token_budget, best.order) == (100, "shortest_prompt")
    assert best.value == pytest.approx(4000 / 3)


def test_runs_of_cases_are_those_of_simulate(cases):
    scheduler = parametric(token_budget=64)
    rows = cases.map([scheduler], lambda result: result.requests.tobytes())[0]
    expected = [
        ls.simulate(scheduler, w, cases.engine, seed=s).requests.tobytes() for w in cases.workloads for s in cases.seeds
    ]
    assert rows == expected
