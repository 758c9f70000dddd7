"""TRAIL on cases worked out by hand; every batch takes a second."""

import math

import pytest

from baselines import learning_to_rank, trail
from tests.baselines.test_shortest_first import simulate

# Budget 1. The first request has its prompt behind it at 1 s and generates a token a second, 10 in all.


@pytest.mark.parametrize(("predicted", "start"), [(4, 10.0), (2, 6.0), (1, 6.0)])
def test_what_is_left_counts(predicted, start):
    # At 6 s six tokens of 10 are there; then 4 are left, fewer or more than the newcomer has. Past 8 it is old.
    result = simulate(trail, [0.0, 5.5], [1, 1], [10, 2], predicted=[10, predicted], token_budget=1)
    assert result.requests.first_scheduled[1] == start


@pytest.mark.parametrize(("youth", "start"), [(0.8, 6.0), (0.6, 10.0), (0.0, 10.0), (1.0, 6.0)])
def test_only_the_young_give_way(youth, start):
    result = simulate(trail(youth=youth), [0.0, 5.5], [1, 1], [10, 2], predicted=[10, 2], token_budget=1)
    assert result.requests.first_scheduled[1] == start


def test_by_the_whole_length_it_would_give_way_in_the_end():
    case = {"arrival": [0.0, 8.5], "prompt": [1, 1], "output": [10, 2], "predicted": [10, 2], "token_budget": 1}
    assert simulate(trail, **case).requests.first_scheduled[1] == 10.0
    assert simulate(learning_to_rank, **case).requests.first_scheduled[1] == 9.0


@pytest.mark.parametrize(("youth", "preempted"), [(0.8, 1), (0.2, 0)])
def test_memory_is_taken_from_the_young_only(youth, preempted):
    # 12 blocks. The first holds 9 at 2 s, has 2 of 5 tokens; the second needs 4 and has fewer left.
    result = simulate(trail(youth=youth), [0.0, 1.5], [8, 4], [5, 1], predicted=[5, 1], kv_blocks=12)
    assert result.requests.preemptions.tolist() == [preempted, 0] and result.drained


def test_a_request_that_outlives_its_prediction_has_one_token_left():
    # Predicted 2, generates 6: never preempted again, and a newcomer predicted to have one token waits.
    result = simulate(trail, [0.0, 2.5], [1, 1], [6, 1], predicted=[2, 1], token_budget=1)
    assert result.requests.first_scheduled[1] == 6.0


def test_without_a_prediction_it_always_gives_way():
    result = simulate(trail, [0.0, 2.5], [1, 1], [6, 4], predicted=[math.nan, 400], token_budget=1)
    assert result.requests.first_scheduled[1] == 3.0
