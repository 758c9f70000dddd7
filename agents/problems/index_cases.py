"""The cases that index policies are trained and judged on, and the cost of a run.

Either they are those of one workload and engine; or some are on the training sites of the suite, the others on random
sites, since a policy for unknown workloads has to see many.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from agents.config import Training
from agents.problems.workload_split import at_load, workload_split
from agents.settings import IndexSettings
from llmsched_env.evaluation.cases import SEED_BLOCK, TRAINING_SEEDS, TUNING_SEEDS, map_runs
from llmsched_env.evaluation.random_sites import RandomSite, random_site
from llmsched_env.evaluation.suite import TRAINING, Site
from llmsched_env.machine.config import EngineConfig
from llmsched_env.objectives import OBJECTIVES
from llmsched_env.results.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.workloads import Workload

AnySite: TypeAlias = "Site | RandomSite | OwnSite"
IndexCase: TypeAlias = tuple[AnySite, Workload, int]
"""(site, its workload at a load, seed)."""


def costs(schedulers: Sequence[Scheduler], cases: Sequence[IndexCase], objective: str) -> np.ndarray:
    """f8[schedulers, cases]: the share of requests that miss a target, or the mean E2E latency in s."""
    chosen = OBJECTIVES[objective]

    def cost(result: Result) -> float:
        value, _ = chosen.of_run(result, None, float(result.end))
        return 1.0 - value if chosen.larger_is_better else chosen.scale * value

    runs = [(workload, site.engine, seed) for site, workload, seed in cases]
    return np.array(map_runs(schedulers, runs, cost, record="requests"))


class IndexCases(ABC):
    """Where the cases of a training come from."""

    @abstractmethod
    def held(self, config: Training, first: int, seeds: int) -> list[IndexCase]:
        """Fixed cases on `seeds` seeds from `first`, one of TUNING_SEEDS and TEST_SEEDS."""

    @abstractmethod
    def of_generation(self, config: Training, settings: IndexSettings, generation: int) -> list[IndexCase]:
        """Of a generation of evolution strategies, on training seeds."""

    @abstractmethod
    def of_sweep(self, config: Training, settings: IndexSettings, sweep: int) -> list[IndexCase]:
        """Of a sweep of the coordinate search, on training seeds."""


class SuiteCases(IndexCases):
    """The training sites of the suite, and random sites."""

    def held(self, config: Training, first: int, seeds: int) -> list[IndexCase]:
        loads = [load for load in config.load if not isinstance(load, str)]
        found: list[IndexCase] = [
            (site, site.at(load), first + k) for site in TRAINING for load in loads for k in range(seeds)
        ]
        return found + _random_cases(np.random.default_rng(first), len(found) // 2, first, (0.75, 1.15))

    def of_generation(self, config: Training, settings: IndexSettings, generation: int) -> list[IndexCase]:
        rng = np.random.default_rng([config.seed, 2, generation])
        picked = rng.choice(len(TRAINING), min(settings.sites, len(TRAINING)), replace=False)
        cases = [_drawn(TRAINING[k], rng, config.train_load, config.horizon) for k in picked]
        return cases + _random_cases(rng, settings.random_sites, TRAINING_SEEDS, config.train_load)

    def of_sweep(self, config: Training, settings: IndexSettings, sweep: int) -> list[IndexCase]:
        rng = np.random.default_rng([config.seed, 3, sweep])
        edges = np.linspace(config.train_load[0], config.train_load[1], settings.cases + 1)
        cases = [_drawn(site, rng, (low, high), config.horizon) for site in TRAINING for low, high in pairwise(edges)]
        return cases + _random_cases(rng, len(cases), TRAINING_SEEDS, config.train_load)


@dataclass(frozen=True, slots=True)
class OwnSite:
    """A workload on an engine, as `evaluation.suite.Site`."""

    workload: Workload
    engine: EngineConfig

    def at(self, load: float, horizon: float | None = None) -> Workload:
        """The workload at a load; its arrivals end where its own do."""
        return self.workload.at_load(load, self.engine)


class OwnCases(IndexCases):
    """The workload and the engine of a training."""

    def __init__(self, config: Training) -> None:
        split, engine = workload_split(config.workload, config.slo, config.horizon), config.engines()[0]
        sites = (OwnSite(workload, engine) for workload in (split.training, split.tuning, split.test))
        self._training, self._tuning, self._test = sites
        self._recorded = split.recorded

    def held(self, config: Training, first: int, seeds: int) -> list[IndexCase]:
        site = self._tuning if first == TUNING_SEEDS else self._test
        tried = 1 if self._recorded else seeds
        return [
            (site, at_load(site.workload, load, site.engine), first + k) for load in config.load for k in range(tried)
        ]

    def of_generation(self, config: Training, settings: IndexSettings, generation: int) -> list[IndexCase]:
        return self._drawn(config, settings.sites, [config.seed, 2, generation])

    def of_sweep(self, config: Training, settings: IndexSettings, sweep: int) -> list[IndexCase]:
        return self._drawn(config, len(TRAINING) * settings.cases, [config.seed, 3, sweep])

    def _drawn(self, config: Training, count: int, seed: list[int]) -> list[IndexCase]:
        rng = np.random.default_rng(seed)
        return [_drawn(self._training, rng, config.train_load, config.horizon) for _ in range(count)]


def _drawn(site: AnySite, rng: np.random.Generator, loads: Sequence[float], horizon: float) -> IndexCase:
    """A case on a training seed."""
    low, high = loads
    return site, site.at(rng.uniform(low, high), horizon), int(TRAINING_SEEDS + rng.integers(SEED_BLOCK))


def _random_cases(rng: np.random.Generator, count: int, first: int, loads: Sequence[float]) -> list[IndexCase]:
    drawn: list[IndexCase] = []
    for _ in range(count):
        site = random_site(rng)
        drawn.append((site, site.at(rng.uniform(loads[0], loads[1])), int(first + rng.integers(SEED_BLOCK))))
    return drawn
