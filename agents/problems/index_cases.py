"""The cases that index policies are trained and validated on, and the cost of a run.

Some are on the training sites of the suite, the others on random sites, since a policy for unknown workloads has to see
many. Training and tuning seeds only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from llmsched_env.evaluation.cases import TRAINING_SEEDS, TUNING_SEEDS, map_runs
from llmsched_env.evaluation.random_sites import RandomSite, random_site
from llmsched_env.evaluation.suite import TRAINING, Site
from llmsched_env.objectives import OBJECTIVES
from llmsched_env.results.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.workloads import Workload

IndexCase = tuple[Site | RandomSite, Workload, int]
"""(site, its workload at a load, seed)."""

FLOOR = {"slo_attainment": 0.004, "mean_e2el": 0.0}
"""By objective, what is added to costs before taking logarithms, so that a single missed request counts little."""
_VALIDATION_LOADS, _VALIDATION_SEEDS = (0.8, 0.95, 1.1), 2
_SEED_BLOCK = 9_000  # training seeds are drawn from the first of this number


def costs(schedulers: Sequence[Scheduler], cases: Sequence[IndexCase], objective: str) -> np.ndarray:
    """f8[schedulers, cases]: the share of requests that miss a target, or the mean E2E latency in s."""
    chosen = OBJECTIVES[objective]

    def cost(result: Result) -> float:
        value, _ = chosen.of_run(result, None, float(result.end))
        return 1.0 - value if chosen.larger_is_better else chosen.scale * value

    runs = [(workload, site.engine, seed) for site, workload, seed in cases]
    return np.array(map_runs(schedulers, runs, cost, record="requests"))


def saved(own: np.ndarray, reference: np.ndarray, objective: str) -> np.ndarray:
    """Logarithm of the reference's cost over its own, by case: above 0 is better."""
    floor = FLOOR[objective]
    return np.log((reference + floor) / (own + floor))


def validation_cases() -> tuple[list[IndexCase], int]:
    """Fixed cases on tuning seeds, those on sites of the suite first; and the number of these."""
    held: list[IndexCase] = [
        (site, site.at(load), TUNING_SEEDS + k)
        for site in TRAINING
        for load in _VALIDATION_LOADS
        for k in range(_VALIDATION_SEEDS)
    ]
    rng = np.random.default_rng(TUNING_SEEDS)
    return held + _random_cases(rng, len(held) // 2, TUNING_SEEDS, (0.75, 1.15)), len(held)


def generation_cases(
    seed: int, generation: int, sites: int, random_sites: int, loads: tuple[float, float], horizon: float
) -> list[IndexCase]:
    """Of a generation of evolution strategies: on `sites` different sites of the suite, and on random sites."""
    rng = np.random.default_rng([seed, 2, generation])
    picked = rng.choice(len(TRAINING), min(sites, len(TRAINING)), replace=False)
    cases: list[IndexCase] = [
        (
            TRAINING[k],
            TRAINING[k].at(rng.uniform(*loads), horizon),
            int(TRAINING_SEEDS + rng.integers(_SEED_BLOCK)),
        )
        for k in picked
    ]
    return cases + _random_cases(rng, random_sites, TRAINING_SEEDS, loads)


def sweep_cases(seed: int, sweep: int, count: int, loads: tuple[float, float], horizon: float) -> list[IndexCase]:
    """Of a sweep of the coordinate search: `count` at each site, spread over the loads, and as many on random sites."""
    rng = np.random.default_rng([seed, 3, sweep])
    edges = np.linspace(*loads, count + 1)
    cases: list[IndexCase] = [
        (site, site.at(rng.uniform(low, high), horizon), int(TRAINING_SEEDS + rng.integers(_SEED_BLOCK)))
        for site in TRAINING
        for low, high in pairwise(edges)
    ]
    return cases + _random_cases(rng, len(cases), TRAINING_SEEDS, loads)


def _random_cases(rng: np.random.Generator, count: int, first: int, loads: tuple[float, float]) -> list[IndexCase]:
    drawn: list[IndexCase] = []
    for _ in range(count):
        site = random_site(rng)
        drawn.append((site, site.at(rng.uniform(*loads)), int(first + rng.integers(_SEED_BLOCK))))
    return drawn
