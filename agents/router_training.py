"""Train the index router by evolution strategies: candidates route the same calls on the same random clusters.

A candidate is measured by the mean logarithm of its cost over the cases of a generation, so that a cluster counts by
the share of latency that is saved there, whether it is quick or slow. The number of generations, not the clock, ends a
training, so that a seed gives the same router on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from agents.evolution_search import Validation, check_search, search
from agents.folders import keep_config
from agents.router_cases import OBJECTIVES, costs, generation_cases, saved, validation_cases
from agents.weights import random_hidden
from baselines.routers import least_outstanding_tokens
from llmsched_env.policies import learned_router, pretrained
from llmsched_env.policies.learned_router import PERCEPTRON, TERMS
from llmsched_env.policies.learned_router import with_weights as policy
from llmsched_env.simulator.router import Router
from llmsched_env.validation import check_choice, check_integer, check_range

PRETRAINED = pretrained.file_of(pretrained.ROUTER)
"""The router that is shipped."""
REFERENCE = least_outstanding_tokens
"""What a training begins at."""


@dataclass(frozen=True, slots=True)
class RouterTraining:
    """How a router is trained.

    Attributes:
        generations: after which it ends.
        seed: of everything random.
        objective: "mean_e2el", the mean latency of calls, or "slo_attainment".
        loads: range of the loads of clusters.
        noise: of the search distribution at the start; shrinks linearly to a fifth.
        learning_rate: at the start; shrinks linearly to a tenth.
        pairs: of candidates.
        decay: of the weights.
        validate_every: generations.
        validation_rounds: over the workloads, each on another cluster.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    generations: int = 60
    seed: int = 0
    objective: str = "mean_e2el"
    loads: tuple[float, float] = (0.7, 1.05)
    noise: float = 0.1
    learning_rate: float = 0.05
    pairs: int = 12
    decay: float = 0.9995
    validate_every: int = 10
    validation_rounds: int = 4

    def __post_init__(self) -> None:
        for name in ("generations", "validate_every", "validation_rounds"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("seed", self.seed, at_least=0)
        check_choice("objective", self.objective, OBJECTIVES)
        check_range("loads", self.loads, above=0)
        check_search(self)


def first_weights(seed: int) -> np.ndarray:
    """Random hidden units and an output layer of zeros: `least_outstanding_tokens`."""
    return random_hidden(seed, PERCEPTRON)


def constant_weights(changes: Mapping[str, float]) -> np.ndarray:
    """Those by which the terms always count as at the start, but for these changes by name of the term."""
    weights, spread = np.zeros(PERCEPTRON.size), {term.name: term.spread for term in TERMS}
    for name, change in changes.items():
        PERCEPTRON.output_layer(weights)[PERCEPTRON.output_place(name), -1] = change / spread[name]
    return weights


def load(path: str | Path = PRETRAINED, name: str | None = None) -> Router:
    """The router that a training has found; by default the one that is shipped.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights of this network.
    """
    return learned_router.load(path, name)


def train(config: RouterTraining, folder: Path, say: Callable[[str], None] = print) -> np.ndarray:
    """Search for so many generations, going on from `folder` if a search is there; returns the best weights.

    The best are those that saved most in validation. `folder` holds `config.json`, `best.npz`, `last.npz` (to go on
    from) and TensorBoard's logs.

    Raises:
        ValueError: if another training is in the folder.
    """
    keep_config(folder, asdict(config))
    objective = config.objective
    held = validation_cases(config.loads, config.validation_rounds)
    target = costs([REFERENCE], held, objective)[0]

    def validate(weights: np.ndarray) -> Validation:
        own = costs([policy(weights)], held, objective)[0]
        gains = saved(own, target, objective)
        numbers = {"worst_case": gains.min(), objective: own.mean(), f"reference_{objective}": target.mean()}
        text = f"cost {own.mean():.4f}, {REFERENCE.name} {target.mean():.4f}, saved {gains.mean():+.4f} in logarithms"
        return Validation(float(gains.mean()), numbers, text)

    def found(candidates: np.ndarray, generation: int) -> np.ndarray:
        cases = generation_cases(config.seed, generation, config.loads)
        every = costs([*map(policy, candidates), REFERENCE], cases, objective)
        return saved(every[:-1], every[-1], objective).mean(axis=1)

    return search(config, folder, PERCEPTRON, first_weights(config.seed), found, validate, say)
