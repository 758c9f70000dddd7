"""The bound of SLO attainment: by hand, against all subsets, and never beaten."""

import math
from itertools import combinations

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.results.metrics import within_limits
from llmsched_env.theory import least_misses, slo_attainment_bound
from tests.simulator.cases import memory_case, run, small_case

SCHEDULERS = list(baselines.REGISTRY.values())
ONE_TOKEN_A_SECOND = ls.EngineConfig(ls.Staircase(c=0.0, a=1.0, b0=1), token_budget=64)


def test_one_server_by_hand():
    assert least_misses([0, 0, 0], [2, 2, 2], [1, 1, 1]) == 1
    assert least_misses([0, 0, 0], [10, 2, 2], [1, 1, 1]) == 0
    assert least_misses([0, 0], [3, 3], [3, 1]) == 1  # the longer one is dropped
    assert least_misses([0], [1], [1.5]) == 1
    assert least_misses([0, 0], [math.inf, 1], [9, 1]) == 0
    assert least_misses([], [], []) == 0


def test_intervals_apart_add_up():
    arrival = [0, 0, 10, 10, 20]
    assert least_misses(arrival, np.add(arrival, 1), np.ones(5)) == 2
    assert least_misses(arrival, np.add(arrival, 1), np.ones(5), window=1) == 0


@pytest.mark.parametrize("arrival, work", [([1, 0], [1, 1]), ([0, 1], [1])])
def test_bad_jobs_are_refused(arrival, work):
    with pytest.raises(ValueError, match="arrival"):
        least_misses(arrival, [5, 5], work)


def on_time(jobs) -> bool:
    """Whether earliest deadline first, which is optimal with preemption, ends all (arrival, deadline, work) in time."""
    left, clock = {job: work for job, (_, _, work) in enumerate(jobs)}, 0
    while left:
        present = [job for job in left if jobs[job][0] <= clock]
        if present:
            job = min(present, key=lambda job: jobs[job][1])
            left[job] -= 1
            if left[job] == 0:
                del left[job]
                if clock + 1 > jobs[job][1]:
                    return False
        clock += 1
    return True


def test_it_is_no_more_than_the_best_of_all_subsets_and_mostly_equal():
    rng, equal, rounds = np.random.default_rng(5), 0, 150
    for _ in range(rounds):
        n = int(rng.integers(1, 8))
        arrival = np.sort(rng.integers(0, 9, n))
        work = rng.integers(1, 5, n)
        deadline = arrival + work + rng.integers(0, 5, n)
        jobs = list(zip(arrival.tolist(), deadline.tolist(), work.tolist(), strict=True))
        served = next(k for k in range(n, -1, -1) if any(map(on_time, combinations(jobs, k))))
        bound = least_misses(arrival, deadline, work)
        assert bound <= n - served, jobs
        equal += bound == n - served
    assert equal > 0.7 * rounds


def columns(*requests):
    """A table of (arrival, prompt, output, ttft_slo, tpot_slo) each."""
    arrival, prompt, output, ttft, tpot = np.array(requests, float).T
    return ls.RequestTable.from_columns(arrival, prompt, output, ttft_slo=ttft, tpot_slo=tpot)


def test_prompts_that_do_not_fit_miss():
    inf = math.inf
    three = [(0, 4, 1, 8.5, inf)] * 3  # 4 s each, of 8.5 s
    assert slo_attainment_bound(columns(*three), ONE_TOKEN_A_SECOND) == pytest.approx(2 / 3)
    assert slo_attainment_bound(columns((0, 9, 1, 8.5, inf), (20, 1, 1, 2, inf)), ONE_TOKEN_A_SECOND) == 0.5
    # Two of one token fit by their first; with three more tokens each, at one per 1.5 s, there are 8 s for 8 tokens.
    assert slo_attainment_bound(columns(*[(0, 1, 4, 2.0, 1.5)] * 2), ONE_TOKEN_A_SECOND) == 0.5
    assert slo_attainment_bound(columns(*[(0, 1, 4, 2.0, 2.0)] * 2), ONE_TOKEN_A_SECOND) == 1.0
    assert math.isnan(slo_attainment_bound(columns(*three).rows(0, 0), ONE_TOKEN_A_SECOND))


@pytest.mark.parametrize("case_of", [small_case, memory_case])
def test_nobody_is_above_it(case_of):
    below_one = 0
    for number in range(300):
        rng = np.random.default_rng([number, 11])
        case = case_of(lambda low, high, rng=rng: int(rng.integers(low, high + 1)))
        table = case.workload.sample(0).with_slo(
            ls.SLO(ttft=float(rng.uniform(0.1, 2)), tpot=float(rng.uniform(0.05, 0.5)))
        )
        case = case._replace(workload=ls.Workload.from_table(table, "targets"))
        scheduler = SCHEDULERS[int(rng.integers(len(SCHEDULERS)))]
        rows = run(scheduler, case).requests
        bound = slo_attainment_bound(table, case.engine)
        assert within_limits(rows).mean() <= bound + 1e-12, (number, scheduler, case)
        below_one += bound < 1
    assert below_one > 20
