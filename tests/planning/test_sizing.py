"""The fewest replicas, where they are known."""

import math

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from baselines.routers import join_shortest_queue, round_robin
from llmsched_env.planning import Option, plan, size

SECOND = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=10**6), token_budget=1)  # one request of one token in a second


def every(gap: float, n: int = 60, ttft: float = 1.05) -> ls.Workload:
    """One-token requests at equal distances, each to be served within `ttft` s; 1 s if none waits."""
    return ls.Workload.from_arrays(gap * np.arange(n), np.ones(n, int), np.ones(n, int), slo=ls.SLO(ttft=ttft))


@pytest.mark.parametrize(("gap", "replicas"), [(1.0, 1), (0.5, 2), (0.4, 3), (0.2, 5), (0.15, 7)])
def test_deterministic_arrivals_need_as_many_servers_as_fit_into_a_service_time(gap, replicas):
    # In turn, each of n engines gets a request every n * gap seconds and takes one second: none waits if n * gap >= 1.
    sizing = size(Option("toy", SECOND, price=2.0), baselines.sarathi, every(gap), round_robin, target=1.0)
    assert sizing.replicas == sizing.at_least == replicas == math.ceil(1 / gap)
    assert sizing.points[replicas].attainment == (1.0,)
    assert replicas == 1 or sizing.points[replicas - 1].attainment[0] < 1
    assert sizing.points[replicas].replicas == replicas


def test_costs_and_the_value_of_one_more():
    sizing = size(Option("toy", SECOND, price=7.2), baselines.sarathi, every(0.5), round_robin, target=1.0)
    point = sizing.points[2]
    # 60 requests of 2 tokens are done after 59 gaps and a second of service: 30.5 s; two engines, 30 busy seconds each.
    assert point.tokens[0] == pytest.approx(120 / 30.5)
    assert point.utilisation[0] == pytest.approx(30 / 30.5)
    assert sizing.cost_per_million_tokens(2) == pytest.approx(7.2 * 2 / 3600 * 30.5 / 120 * 1e6)
    assert sizing.marginal_goodput(2) == pytest.approx(0.0)
    assert sizing.marginal_goodput(1) > 0.5


def test_a_target_out_of_reach_is_said_to_be():
    slow = every(0.5, ttft=0.9)  # an idle engine takes a second
    assert size(Option("toy", SECOND, 1.0), baselines.sarathi, slow, round_robin, most_replicas=4).replicas is None


def test_random_arrivals_are_decided_by_intervals():
    workload = ls.Workload.poisson(rate=2.0, prompt_tokens=1, output_tokens=1, horizon=40.0, slo=ls.SLO(ttft=3.0))
    sizing = size(Option("toy", SECOND, 1.0), baselines.sarathi, workload, join_shortest_queue, 0.9, most_seeds=10)
    mean, half = sizing.points[sizing.replicas].interval("attainment")
    assert mean - half >= 0.9 or half == 0
    assert sizing.replicas >= 2 == sizing.first_guess


def test_the_cheapest_machine_wins():
    fast = ls.EngineConfig(ls.Staircase(c=0.25, a=0.25, b0=10**6), token_budget=1)
    options = [Option("slow", SECOND, 1.0), Option("fast", fast, 1.5)]
    answer = plan(options, {"sarathi": baselines.sarathi}, every(0.25), round_robin, target=1.0)
    assert {key: s.replicas for key, s in answer.sizings.items()} == {("slow", "sarathi"): 4, ("fast", "sarathi"): 2}
    assert answer.cheapest == ("fast", "sarathi")


def test_bad_input():
    with pytest.raises(ValueError, match=r"price must be .* > 0 .*got 0"):
        Option("toy", SECOND, 0.0)
    with pytest.raises(ValueError, match="target must be .* got 1.5"):
        size(Option("toy", SECOND, 1.0), baselines.sarathi, every(1.0), round_robin, target=1.5)
