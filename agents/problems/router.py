"""The index router, by evolution strategies.

All candidates of a generation route the same calls on the same random clusters. The measure is the mean logarithm of
the cost, so a cluster matters by the share of latency that is saved there, whether it is fast or slow. The number of
generations ends a training, not the clock, so that a seed gives the same router on any machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from agents.run import Say, Validation
from agents.search.learner import SearchProblem, search
from agents.search.random_start import random_hidden
from agents.search.stages import EvolutionSettings, EvolutionStage, Stage
from baselines.routers import least_outstanding_tokens
from llmsched_env.evaluation.benchmark.router_cases import (
    OBJECTIVES,
    RouterCase,
    costs,
    generation_cases,
    saved,
    validation_cases,
)
from llmsched_env.policies.learned_router import PERCEPTRON, with_weights
from llmsched_env.validation import check_choice, check_integer, check_range

REFERENCE = least_outstanding_tokens
"""What a training begins at, and validation compares with."""


@dataclass(frozen=True, slots=True)
class RouterTraining:
    """How a router is trained.

    Attributes:
        search: how long and how widely evolution strategies search.
        seed: of everything random.
        objective: "mean_e2el", the mean latency of calls, or "slo_attainment".
        loads: range of the loads of clusters.
        validate_every: generations.
        validation_rounds: rounds over the workloads, each on another cluster.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    search: EvolutionSettings = EvolutionSettings(60)
    seed: int = 0
    objective: str = "mean_e2el"
    loads: tuple[float, float] = (0.7, 1.05)
    validate_every: int = 10
    validation_rounds: int = 4

    def __post_init__(self) -> None:
        for name in ("validate_every", "validation_rounds"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("seed", self.seed, at_least=0)
        check_choice("objective", self.objective, OBJECTIVES)
        check_range("loads", self.loads, above=0)
        check_integer("generations", self.search.generations, at_least=1)


def first_weights(seed: int) -> np.ndarray:
    """f8[size]: random hidden units and an output layer of zeros, which is `least_outstanding_tokens`."""
    return random_hidden(seed, PERCEPTRON)


class RouterProblem(SearchProblem):
    """Weights of the index router."""

    network = PERCEPTRON

    def __init__(self, config: RouterTraining) -> None:
        self.config = config
        self.validate_every = config.validate_every

    def first_weights(self) -> np.ndarray:
        return first_weights(self.config.seed)

    def stages(self) -> list[Stage]:
        return [EvolutionStage(self.config.search, self.config.seed, self.fitness)]

    def fitness(self, candidates: np.ndarray, generation: int) -> np.ndarray:
        """Of candidates f8[k, size]: the mean logarithm of the cost of the reference over one's own."""
        config = self.config
        cases = generation_cases(config.seed, generation, config.loads)
        found = costs([*map(with_weights, candidates), REFERENCE], cases, config.objective)
        return np.asarray(saved(found[:-1], found[-1], config.objective).mean(axis=1))

    @cached_property
    def _held(self) -> tuple[list[RouterCase], np.ndarray]:
        held = validation_cases(self.config.loads, self.config.validation_rounds)
        return held, costs([REFERENCE], held, self.config.objective)[0]

    def validate(self, weights: np.ndarray) -> Validation:
        objective, (held, target) = self.config.objective, self._held
        own = costs([with_weights(weights)], held, objective)[0]
        gains = saved(own, target, objective)
        numbers = {"saved": gains.mean(), "worst_case": gains.min()}
        numbers |= {objective: own.mean(), f"reference_{objective}": target.mean()}
        text = f"cost {own.mean():.4f}, {REFERENCE.name} {target.mean():.4f}, saved {gains.mean():+.4f} in logarithms"
        return Validation(float(gains.mean()), numbers, text)


def train(config: RouterTraining, folder: Path, say: Say = print) -> np.ndarray:
    """Search, from where the folder stands; returns the best weights validated, f8[size].

    Raises:
        ValueError: if another training is in the folder.
    """
    return search(RouterProblem(config), asdict(config), folder, say)
