"""Theorem 2 of arXiv 2504.07347 for every scheduler that claims it: stable just below the rate of full batches."""

import math

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.theory import critical_rate

ENGINE = ls.EngineConfig(ls.Staircase(c=0.01128, a=0.03547, b0=128), token_budget=512, first_token="separate")
HORIZON = 240.0  # s
SEEDS = range(6)
# Of the offered tokens per second. The backlog of a stable queue with these lengths has a standard deviation of about
# 2300 tokens and forgets within a minute, so the mean slope of six runs has one of 0.4 %; 5 % is what a machine lacks
# whose capacity is a tenth below the rate of full batches.
THRESHOLD = 0.02


def tenths(mean):
    """Lengths spread evenly from a tenth to nearly twice the mean."""
    return ls.dist.Uniform(mean // 10, 2 * mean - mean // 10)


@pytest.mark.parametrize("name", [name for name, s in baselines.REGISTRY.items() if s.throughput_optimal])
def test_the_backlog_does_not_grow_at_095_of_the_capacity(name):
    workload = ls.Workload.poisson(1.0, tenths(100), tenths(100), HORIZON).with_predictor(ls.LengthPredictor(0.5))
    workload = workload.scaled(0.95 * critical_rate(ENGINE, workload))
    scheduler = baselines.get(name)
    unlimited = {"token_budget": 512, "max_num_seqs": math.inf}
    scheduler = scheduler(**{name: limit for name, limit in unlimited.items() if name in scheduler.params})
    offered = workload.rate * 200
    times = np.linspace(HORIZON / 2, HORIZON, 200)
    slopes = []
    for seed in SEEDS:
        result = ls.simulate(scheduler, workload, ENGINE, seed, horizon=HORIZON)
        slopes.append(np.polyfit(times, result.backlog(times), 1)[0] / offered)
    assert np.mean(slopes) < THRESHOLD
