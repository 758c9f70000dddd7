"""Bounds of latency and makespan: by hand, reached where they can be, and never beaten."""

import math
from functools import partial

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.theory import makespan_bound, mean_latency_bound
from tests.simulator.cases import memory_case, run, small_case

SCHEDULERS = list(baselines.REGISTRY.values())


def columns(*requests, **more):
    """A table of (arrival, prompt, output) each."""
    return ls.RequestTable.from_columns(*np.array(requests, float).T, **more)


def test_a_single_request_takes_its_own_time():
    # A prompt of 9 tokens in batches of 4 takes three, 2 + 2 + 2 s at least; four more tokens take a batch each.
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=1.0, b0=4), token_budget=4)
    table = columns((3, 9, 5))
    assert mean_latency_bound(table, engine) == pytest.approx(14.0)
    assert makespan_bound(table, engine) == pytest.approx(17.0)
    result = ls.simulate(baselines.sarathi, ls.Workload.from_table(table, "one"), engine)
    assert result.requests.finish[0] == pytest.approx(17.0)


def test_attention_of_its_own_counts():
    # 1 s a batch, 0.5 s for a request in it; contexts 3 and 4 are read, 1 + 2 + 3 pairs attended to.
    law = ls.Roofline(c=1.0, a_tok=0.125, a_tok_over=0.0, b0=1, a_kv=0.25, a_attn=0.5, a_ctx=1.0)
    engine = ls.EngineConfig(law, host_overhead=(0.0, 0.5))
    table = columns((0, 3, 3))
    exact = ls.simulate(baselines.sarathi, ls.Workload.from_table(table, "one"), engine).requests.finish[0]
    assert exact == pytest.approx(3 * 1.5 + 5 * 0.125 + 7 * 0.25 + 6 * 0.5)
    # All but two of three prompt tokens' 0.125 s: a batch of one token is the shortest.
    assert mean_latency_bound(table, engine) == pytest.approx(exact - 2 * 0.125)


def test_the_server_and_the_requests_alone_bound_together():
    # Batches of 2 tokens a second at most. As a server the engine ends requests of 1, 1 and 4 tokens at 0.5, 1 and 3 s;
    # alone they take 1, 1 and 4 s (one prompt token, three decodes): together at least 1, 1 and 4 s.
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), token_budget=2)
    assert mean_latency_bound(columns((0, 1, 1), (0, 1, 1), (0, 1, 4)), engine) == pytest.approx(2.0)
    # Four of one token: the server says 0.5, 1, 1.5, 2 and alone they take 1 each; 1, 1, 1.5 and 2.
    assert mean_latency_bound(columns(*[(0, 1, 1)] * 4), engine) == pytest.approx(1.375)


def test_the_later_of_both_times_of_each_request_would_be_no_bound():
    """The server serves 50 tokens of B before 99 of A: A at 1.49 s. Really a batch takes A and B's first token: 1 s."""
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), token_budget=100)
    table = columns((0, 99, 1), (0, 1, 50))
    rows = ls.simulate(baselines.sarathi, ls.Workload.from_table(table, "two"), engine).requests
    assert rows.finish.tolist() == [1.0, 50.0]
    assert mean_latency_bound(table, engine) == pytest.approx(25.5)


def test_a_makespan_counts_work_from_any_arrival_on():
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), token_budget=4)
    table = columns((0, 4, 1), (10, 8, 1), (11, 8, 1), (12, 1, 1))
    assert makespan_bound(table, engine) == pytest.approx(10 + 17 / 4)


def test_one_token_a_batch_shortest_first_reaches_it():
    """Where all arrive at once and a batch holds one token, the bound is exact: the shortest remaining goes first."""
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), token_budget=1, first_token="separate")
    table = columns((0, 1, 1), (0, 1, 2), (0, 2, 3))
    best = (2 + 5 + 10) / 3
    assert mean_latency_bound(table, engine) == pytest.approx(best)
    rows = ls.simulate(baselines.sarathi, ls.Workload.from_table(table, "three"), engine).requests
    assert rows.finish.tolist() == [2.0, 5.0, 10.0]


def test_cached_prefixes_are_no_work():
    engine = ls.EngineConfig(
        ls.Staircase(c=0.0, a=1.0, b0=1), kv_blocks=99, block_size=4, token_budget=8, prefix_caching=True
    )
    table = columns((0, 9, 1), (0, 9, 1), (0, 9, 1), parent=[-1, 0, -1], shared_tokens=[0, 7, 0])
    # A parent may find all whole blocks before its last token (8), the child one block (4), the third nothing: works
    # of 1, 5 and 9 tokens at 1 token/s, and alone the same.
    assert mean_latency_bound(table, engine) == pytest.approx((1 + 6 + 15) / 3)


def test_no_requests():
    engine = ls.EngineConfig(ls.Staircase(c=1.0, a=1.0, b0=4))
    empty = columns((0, 1, 1)).rows(0, 0)
    assert math.isnan(mean_latency_bound(empty, engine)) and makespan_bound(empty, engine) == 0.0


def check_random(case_of, first, last):
    """Workloads and engines at random, each under a scheduler at random; in how many all requests finished."""
    all_finished = 0
    for number in range(first, last):
        rng = np.random.default_rng([number, 7])
        case = case_of(lambda low, high, rng=rng: int(rng.integers(low, high + 1)))
        scheduler = SCHEDULERS[int(rng.integers(len(SCHEDULERS)))]
        rows = run(scheduler, case).requests
        if (rows.status != "finished").any():
            continue
        all_finished += 1
        table = case.workload.sample(0)
        what = (number, scheduler, case)
        assert np.mean(rows.finish - rows.arrival) >= mean_latency_bound(table, case.engine) * (1 - 1e-12), what
        assert np.max(rows.finish) >= makespan_bound(table, case.engine) * (1 - 1e-12), what
    return all_finished


CASES = pytest.mark.parametrize(
    "case_of", [partial(small_case, limited=False), small_case, memory_case], ids=["unlimited", "limited", "memory"]
)


@CASES
def test_nobody_is_below_the_bounds(case_of):
    assert check_random(case_of, 0, 500) > 100


@pytest.mark.slow
@CASES
def test_nobody_is_below_the_bounds_in_many_more(case_of):
    assert check_random(case_of, 500, 3000) > 500
