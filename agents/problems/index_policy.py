"""The index policy, its numbers set by a network: evolution strategies, then a coordinate search.

All candidates of a generation serve the same requests, and each case counts by the logarithm of its cost. So a case
matters by the share of its cost that is saved, whether many or few requests miss their targets in it, and the noise of
the workload cancels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import baselines
from agents.problems.index_cases import FLOOR, IndexCase, costs, generation_cases, saved, sweep_cases, validation_cases
from agents.problems.index_start import PLAIN_STAGES, STAGES, IndexStage, first_weights, searched
from agents.run import Say, Validation
from agents.search.learner import SearchProblem, search
from agents.search.stages import CoordinateStage, EvolutionStage, Stage
from llmsched_env.policies.learned_index import PERCEPTRON, with_weights
from llmsched_env.policies.weights import load_weights
from llmsched_env.validation import check_choice, check_integer, check_number, check_range

REFERENCES = {"slo_attainment": "slos_serve", "mean_e2el": "slo_first"}
"""By objective, the baseline that validation compares with."""
_WIDTH = 0.3  # first width of the coordinate search, in spreads of the numbers
_EVEN = 0.05  # added to the spread of log costs over candidates, so that cases without a spread count little


@dataclass(frozen=True, slots=True)
class IndexTraining:
    """How an index policy is trained: stages of evolution strategies, then sweeps of a coordinate search.

    Attributes:
        objective: "slo_attainment" or "mean_e2el".
        pausing: whether prompts that have begun may wait for others, which takes more than four knobs of vLLM.
        start: file of a policy to start from; None: constants.
        plain: whether these are the plain constants of a simple rule, for a training from scratch.
        stages: each starts from the result of the one before it; None for those of `STAGES`, or of `PLAIN_STAGES` if
            the training is plain.
        seed: of everything random.
        sites: cases of a generation on sites of the suite, each on another one.
        random_sites: cases of a generation on random sites.
        loads: range of their loads.
        horizon: s of arrivals at sites of the suite.
        validate_every: generations.
        average: share of the last generations of a stage over which the weights are averaged.
        sweeps: of the coordinate search that follows.
        cases: of a sweep at each site of the suite; as many on random sites come on top.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    objective: str = "slo_attainment"
    pausing: bool = False
    start: Path | None = None
    plain: bool = False
    stages: tuple[IndexStage, ...] | None = None
    seed: int = 0
    sites: int = 6
    random_sites: int = 5
    loads: tuple[float, float] = (0.75, 1.15)
    horizon: float = 60.0
    validate_every: int = 20
    average: float = 0.15
    sweeps: int = 1
    cases: int = 6

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, tuple(REFERENCES))
        if self.plain and self.start is not None:
            raise ValueError(f"plain=True, start={str(self.start)!r}; a training begins at one or the other")
        check_integer("number of stages", len(self.all_stages), at_least=1)
        for name in ("seed", "sites", "random_sites", "sweeps"):
            check_integer(name, getattr(self, name), at_least=0)
        check_integer("sites + random_sites", self.sites + self.random_sites, at_least=1)
        for name in ("validate_every", "cases"):
            check_integer(name, getattr(self, name), at_least=1)
        check_range("loads", self.loads, above=0)
        check_number("horizon", self.horizon, above=0, unit="s")
        check_number("average", self.average, at_least=0, at_most=1)

    @property
    def all_stages(self) -> tuple[IndexStage, ...]:
        """The stages of evolution strategies."""
        if self.stages is not None:
            return self.stages
        return (PLAIN_STAGES if self.plain else STAGES)[self.objective]


class IndexProblem(SearchProblem):
    """Weights of the network that sets the numbers of the index policy."""

    network = PERCEPTRON

    def __init__(self, config: IndexTraining) -> None:
        self.config = config
        self.objective = config.objective
        self.validate_every = config.validate_every

    def record(self) -> dict[str, Any]:
        """The configuration as it is kept, with a digest of the first weights: constants and files may change."""
        config = self.config
        start = None if config.start is None else Path(config.start).name
        first = hashlib.sha256(self.first_weights().tobytes()).hexdigest()
        stages = [asdict(stage) for stage in config.all_stages]
        return asdict(config) | {"stages": stages, "start": start, "first_weights": first}

    def first_weights(self) -> np.ndarray:
        config = self.config
        first = first_weights(config.objective, config.pausing, config.plain)
        if config.start is None:
            return first
        fixed = [PERCEPTRON.output_place(name) for name in ("begun", "blocking")]
        weights = load_weights(config.start, PERCEPTRON)
        PERCEPTRON.output_layer(weights)[fixed] = PERCEPTRON.output_layer(first)[fixed]  # pausing is not up to the file
        return weights

    def stages(self) -> list[Stage]:
        config = self.config
        places = [searched(stage, config.pausing) for stage in config.all_stages]
        found: list[Stage] = [
            EvolutionStage(stage, config.seed + k, self.fitness, places[k], config.average)
            for k, stage in enumerate(config.all_stages)
        ]
        return [*found, CoordinateStage(config.sweeps, _WIDTH, config.seed, self.sweep_costs, places[-1])]

    def fitness(self, candidates: np.ndarray, generation: int) -> np.ndarray:
        """Of candidates f8[k, size]: each case has the same weight, however much the candidates differ in it."""
        config = self.config
        cases = generation_cases(
            config.seed, generation, config.sites, config.random_sites, config.loads, config.horizon
        )
        logs = self._log_costs(candidates, cases)
        return np.asarray(-((logs - logs.mean(axis=0)) / (logs.std(axis=0) + _EVEN)).mean(axis=1))

    def sweep_costs(self, sweep: int) -> Callable[[np.ndarray], np.ndarray]:
        """Logarithms of the costs f8[k, cases] on the cases of a sweep, as a function of weights f8[k, size]."""
        config = self.config
        cases = sweep_cases(config.seed, sweep, config.cases, config.loads, config.horizon)
        return lambda candidates: self._log_costs(candidates, cases)

    def _log_costs(self, candidates: np.ndarray, cases: Sequence[IndexCase]) -> np.ndarray:
        found = costs([with_weights(weights) for weights in candidates], cases, self.objective)
        return np.log(found + FLOOR[self.objective])

    @cached_property
    def _held(self) -> tuple[list[IndexCase], int, np.ndarray]:
        cases, on_suite = validation_cases()
        return cases, on_suite, costs([baselines.get(REFERENCES[self.objective])], cases, self.objective)[0]

    def validate(self, weights: np.ndarray) -> Validation:
        """On fixed tuning seeds: all training sites of the suite, and random ones that training never draws."""
        cases, on_suite, target = self._held
        own = costs([with_weights(weights)], cases, self.objective)[0]
        gains = saved(own, target, self.objective)
        numbers = {"saved": gains.mean(), "worst_case": gains.min(), f"{self.objective}_cost": own.mean()}
        text = (
            f"cost {own.mean():.5f}, reference {target.mean():.5f}, "
            f"saved {gains.mean():+.4f} (suite {gains[:on_suite].mean():+.4f})"
        )
        return Validation(float(gains.mean()), numbers, text)


def train(config: IndexTraining, folder: Path, say: Say = print) -> np.ndarray:
    """Search stage by stage, from where the folder stands; returns the best weights validated, f8[size].

    Raises:
        ValueError: if another training is in the folder.
    """
    problem = IndexProblem(config)
    return search(problem, problem.record(), folder, say)
