"""The most users of a fleet, against what simulation of every number of them says."""

from dataclasses import replace

import numpy as np
import pytest

import llmsched_env as ls
from baselines import sarathi, vllm_v1
from baselines.routers import join_shortest_queue, round_robin
from llmsched_env.planning import most_users
from llmsched_env.planning.users import _last

SECOND = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=10**6), token_budget=1)  # a request of one token in a second
ENGINE = ls.EngineConfig(ls.Staircase(c=0.01, a=0.02, b0=64), token_budget=256, kv_blocks=400)
CHAT = ls.Workload.poisson(1.0, ls.dist.Geometric(120), ls.dist.Geometric(12), horizon=10.0)
ONE = ls.Workload.from_arrays([0.0], [1], [1])


def test_users_of_a_machine_that_serves_one_at_a_time():
    loop = ls.ClosedLoop(lengths=ONE, users=1, duration=60.0)
    # With n users on one engine, a request waits for the n - 1 others: n s. Three engines serve each a third.
    for engines, most in ((1, 4), (3, 12)):
        found = most_users([SECOND] * engines, sarathi, loop, round_robin, {"p95_ttft": 4.5})
        assert found.users == found.at_least == found.at_most == most and not found.warnings
        assert found.points[most].values["p95_ttft"] == (4.0,) * 5
    two = most_users([SECOND], sarathi, loop, round_robin, {"p95_ttft": 4.5, "mean_e2el": 2.5})
    assert two.users == 2 and set(two.row()) >= {"users", "users_at_least", "users_at_most", "mean_e2el_half_width"}
    assert most_users([SECOND], sarathi, loop, round_robin, {"p95_ttft": 0.5}).users == 0
    ended = most_users([SECOND], sarathi, loop, round_robin, {"p95_ttft": 9.5}, most=5)
    assert ended.users == 5 and "the search ended at 5 users" in ended.warnings[0]
    patient = most_users([SECOND], sarathi, replace(loop, think=2.0), round_robin, {"p95_ttft": 4.5})
    assert patient.users == 6  # two more think meanwhile


def test_seeds_of_a_trace_differ_so_that_the_range_says_something():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 300, 64), rng.integers(1, 20, 64)
    loop = ls.ClosedLoop(lengths=ls.Workload.from_arrays(np.arange(64.0), *sizes), users=1, duration=10.0)
    found = most_users([ENGINE], vllm_v1, loop, round_robin, {"mean_ttft": 0.2})
    assert len(set(found.points[found.users].values["mean_ttft"])) > 1


@pytest.mark.parametrize(
    ("engines", "scheduler", "router", "think", "limit"),
    [
        ([ENGINE], vllm_v1, round_robin, 0.0, 0.35),
        ([ENGINE] * 3, sarathi, join_shortest_queue, ls.delays.Exponential(0.5), 0.2),
        ([ENGINE, replace(ENGINE, batch_time=ls.Staircase(c=0.02, a=0.03, b0=64))], vllm_v1, round_robin, 0.2, 0.25),
    ],
    ids=["one engine", "three with thinking users", "two unlike ones"],
)
def test_it_agrees_with_the_simulation_of_every_number(engines, scheduler, router, think, limit):
    loop = ls.ClosedLoop(lengths=CHAT, users=1, think=think, duration=20.0)
    found = most_users(engines, scheduler, loop, router, {"p95_ttft": limit}, most_seeds=15)
    assert 3 < found.at_least <= found.users <= found.at_most

    def mean(users):
        values = []
        for seed in range(30):
            rows = ls.simulate_network(
                scheduler, loop.with_users(users), engines, router, seed, record="requests"
            ).requests
            rows = rows[rows.arrival >= 5.0]
            values.append(np.percentile(rows.first_token - rows.arrival, 95))
        return np.mean(values)

    around = range(max(1, found.at_least - 3), found.at_most + 4)
    most = max(users for users in around if mean(users) <= limit)
    assert found.at_least <= most <= found.at_most


@pytest.mark.parametrize("answer", [0, 1, 2, 3, 7, 8, 100, 999, 1000])
def test_the_last_number_for_which_something_holds(answer):
    assert _last(lambda n: n <= answer, 0, 1000) == answer
    assert _last(lambda n: n <= answer, min(answer, 2), 50) == min(answer, 50)


def test_what_is_refused():
    loop = ls.ClosedLoop(lengths=ONE, users=1, duration=60.0)
    for limits, message in (
        ({}, "limits must not be empty"),
        ({"p95_tftt": 1.0}, "limit must be .*got 'p95_tftt'.*p95_ttft"),
        ({"p95_ttft": 0.0}, "p95_ttft must be .* got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            most_users([SECOND], sarathi, loop, round_robin, limits)
    with pytest.raises(ValueError, match="duration must be a number of seconds"):
        most_users([SECOND], sarathi, ls.ClosedLoop(lengths=ONE, users=1), round_robin, {"p95_ttft": 1.0})
