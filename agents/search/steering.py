"""Searches for the small network that steers a compiled rule: what those for an index, a network and a router share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from agents.config import SCRATCH, TUNED_START, Training
from agents.problem import Numbers, Validation
from agents.search.learner import SearchProblem
from agents.search.stages import EvolutionStage, Stage
from agents.settings import ESSettings
from llmsched_env.evaluation.savings import saved
from llmsched_env.policies.perceptron import Perceptron
from llmsched_env.policies.weights import load_weights, save_weights


class SteeringSearch(SearchProblem):
    """Weights of a perceptron; validation compares their costs with those of a reference, case by case.

    Args:
        config: what to train.

    Attributes:
        perceptron: to which the weights belong.
        reference: name of what validation compares with.
        objective: of the costs: "mean_e2el" for those that are proportional to a latency, or "slo_attainment".
    """

    best = "best.npz"
    perceptron: Perceptron
    reference: str
    objective = "mean_e2el"

    def __init__(self, config: Training) -> None:
        if config.start == SCRATCH:
            raise ValueError(f"start must be {TUNED_START!r}, a plain rule, or the file of a policy, got {SCRATCH!r}")
        self.config = config

    def first_weights(self) -> np.ndarray:
        """Those of a file, or random hidden units and outputs of 0: the rule as it is without a network."""
        start = self.config.start
        if start != TUNED_START:
            return load_weights(start, self.perceptron)
        weights, inputs = np.zeros(self.perceptron.size), len(self.perceptron.inputs)
        units = np.random.default_rng([self.config.seed, 1]).normal(
            0, inputs**-0.5, (self.perceptron.hidden, inputs + 1)
        )
        self.perceptron.hidden_layer(weights)[:] = units
        return weights

    def stages(self) -> Sequence[Stage]:
        settings = self.config.settings
        assert isinstance(settings, ESSettings)
        return [EvolutionStage(settings, self.config.seed, self.fitness, settings.validate_every)]

    @abstractmethod
    def fitness(self, candidates: np.ndarray, generation: int) -> np.ndarray:
        """Of weights f8[k, n] on the cases of a generation, f8[k]: the larger the better."""

    @abstractmethod
    def held_costs(self, policy: np.ndarray | None) -> np.ndarray:
        """f8[cases] of weights f8[n], or of the reference (None), on the validation cases."""

    def references(self) -> dict[str, Numbers]:
        return {self.reference: {"cost": float(self._target.mean()), "saved": 0.0}}

    @cached_property
    def _target(self) -> np.ndarray:
        return self.held_costs(None)

    def validate(self, policy: np.ndarray) -> Validation:
        own, target = self.held_costs(policy), self._target
        gains = saved(own, target, self.objective)
        numbers = {"saved": float(gains.mean()), "worst_case": float(gains.min()), "cost": float(own.mean())}
        text = f"cost {own.mean():.5f}, {self.reference} {target.mean():.5f}, saved {gains.mean():+.4f} in logarithms"
        return Validation(float(gains.mean()), numbers, text)

    def save_policy(self, path: Path, weights: np.ndarray, **about: float) -> None:
        save_weights(path, self.perceptron, weights, **about)
