"""The index router, by evolution strategies.

All candidates of a generation route the same calls on the same clusters: random ones, or the one that is given. The
measure is the mean logarithm of the cost, so a cluster matters by the share of latency that is saved there, whether it
is fast or slow. The number of generations ends a training, not the clock, so that a seed gives the same router on any
machine.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from agents.config import SUITE, Training
from agents.problems.network import MEAN_CALL, facts
from agents.report import AGENT, paired_report
from agents.search.steering import SteeringSearch
from agents.settings import ESSettings
from baselines.routers import ROUTERS, least_outstanding_tokens
from llmsched_env.evaluation.benchmark.router_cases import (
    Cluster,
    RouterCase,
    costs,
    generation_cases,
    validation_cases,
)
from llmsched_env.evaluation.benchmark.routers import CLUSTERS
from llmsched_env.evaluation.cases import SEED_BLOCK, TEST_SEEDS, TRAINING_SEEDS, TUNING_SEEDS, seed_range
from llmsched_env.evaluation.savings import saved
from llmsched_env.objectives import Objective
from llmsched_env.policies.learned_router import PERCEPTRON, load, with_weights
from llmsched_env.validation import check_choice, check_number

REFERENCE = least_outstanding_tokens
"""What a training begins at, and validation compares with."""
_OBJECTIVES = {"calls": "mean_e2el", "slo": "slo_attainment"}
_MISSED = Objective(
    name="missed", metric="missed", meaning="share of the calls that miss a target", title="Missed targets",
    scale=1e2, unit="%", larger_is_better=False,
)  # fmt: skip


class SteeredRouter(SteeringSearch):
    """Weights of the index router."""

    perceptron = PERCEPTRON
    reference = REFERENCE.name

    def __init__(self, config: Training) -> None:
        super().__init__(config)
        self.objective = _OBJECTIVES[check_choice("reward of a router", config.reward, tuple(_OBJECTIVES))]
        self._loads = [check_number("load", load, above=0) for load in config.load]  # type: ignore[arg-type]

    @property
    def _runs(self) -> int:
        settings = self.config.settings
        assert isinstance(settings, ESSettings)
        return settings.runs

    def _cluster(self, load: float) -> Cluster:
        config = self.config
        return Cluster(f"{config.workload} on {len(config.engine)} engines", config.workload, config.engine, load)

    def fitness(self, candidates: np.ndarray, generation: int) -> np.ndarray:
        """The mean logarithm of the cost of the reference over one's own."""
        found = costs([*map(with_weights, candidates), REFERENCE], self.cases(generation), self.objective)
        return np.asarray(saved(found[:-1], found[-1], self.objective).mean(axis=1))

    def cases(self, generation: int) -> list[RouterCase]:
        """Of a generation, on training seeds."""
        config = self.config
        low, high = config.train_load
        if config.workload == SUITE:
            return generation_cases(config.seed, generation, (low, high))
        rng = np.random.default_rng([config.seed, 2, generation])
        return [
            (self._cluster(rng.uniform(low, high)), int(TRAINING_SEEDS + rng.integers(SEED_BLOCK)))
            for _ in range(self._runs)
        ]

    @cached_property
    def _held(self) -> list[RouterCase]:
        config = self.config
        low, high = config.train_load
        if config.workload == SUITE:
            return validation_cases((low, high), config.tuning_seeds)
        seeds = seed_range(TUNING_SEEDS, config.tuning_seeds)
        return [(self._cluster(load), seed) for load in self._loads for seed in seeds]

    def held_costs(self, policy: np.ndarray | None) -> np.ndarray:
        router = REFERENCE if policy is None else with_weights(policy)
        return np.asarray(costs([router], self._held, self.objective)[0])

    def report(self, best: Path, folder: Path, command: str) -> str:
        config, seeds = self.config, seed_range(TEST_SEEDS, self.config.seeds)
        clusters = CLUSTERS if config.workload == SUITE else tuple(map(self._cluster, self._loads))
        cases = [(cluster, seed) for cluster in clusters for seed in seeds]
        routers = {AGENT: load(best)} | ROUTERS
        rows = dict(zip(routers, costs(list(routers.values()), cases, self.objective), strict=True))
        objective = MEAN_CALL if self.objective == "mean_e2el" else _MISSED
        return paired_report(rows, objective, folder, facts(config, command, len(cases)))
