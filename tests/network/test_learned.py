"""Schedulers that a controller steers, on every engine of a network."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import llmsched_env as ls
from baselines.routers import round_robin
from llmsched_env.envs.batch_queue import parametric

ENGINE = ls.EngineConfig(ls.Staircase(c=0.01, a=0.02, b0=64), token_budget=1024, kv_blocks=120)
WORKLOAD = ls.Workload.poisson(rate=12.0, prompt_tokens=90, output_tokens=25, horizon=8.0)


@dataclass
class BudgetByQueue:
    """A small budget while few wait, a large one else; remembers how often it has decided."""

    interval: float | None
    decisions: int = 0

    def fresh(self, engine: ls.EngineConfig) -> "BudgetByQueue":
        return BudgetByQueue(self.interval)

    def decide(self, view) -> np.ndarray:
        self.decisions += 1
        budget = 512 if len(view.waiting) > 3 or self.decisions % 5 == 0 else 64
        return np.array([budget, np.inf, 0, 0, 0.0])


@pytest.mark.parametrize("interval", [None, 0.13])
def test_one_engine_is_steered_as_in_simulate(interval):
    scheduler = replace(parametric, name="steered", controller=BudgetByQueue(interval))
    alone = ls.simulate(scheduler, WORKLOAD, ENGINE, seed=3)
    network = ls.simulate_network(scheduler, WORKLOAD, [ENGINE], round_robin, seed=3)
    for name in ("first_token", "finish", "generated", "preemptions"):
        np.testing.assert_array_equal(network.requests[name], alone.requests[name])
    np.testing.assert_array_equal(network.batches.prefill_tokens, alone.batches.prefill_tokens)
    assert alone.batches.prefill_tokens.max() > 64 >= np.median(alone.batches.prefill_tokens)


@pytest.mark.parametrize("interval", [None, 0.13])
def test_every_engine_has_a_controller_of_its_own(interval):
    scheduler = replace(parametric, name="steered", controller=BudgetByQueue(interval))
    busy = WORKLOAD.scaled(rate=40.0)
    result = ls.simulate_network(scheduler, busy, [ENGINE] * 3, round_robin, seed=1)
    assert result.drained and set(result.requests.engine) == {0, 1, 2}
    assert all(result.batches[result.batches.engine == g].prefill_tokens.max() > 64 for g in range(3))
