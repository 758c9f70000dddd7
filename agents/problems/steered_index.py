"""The index policy, its numbers set by a network: evolution strategies, then a coordinate search.

All candidates of a generation serve the same requests, and each case counts by the logarithm of its cost. So a case
matters by the share of its cost that is saved, whether many or few requests miss their targets in it, and the noise of
the workload cancels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import baselines
from agents.config import SUITE, TUNED_START, Training
from agents.problems.index_cases import IndexCase, IndexCases, OwnCases, SuiteCases, costs
from agents.problems.index_form import STAGES, IndexStage, first_weights, searched
from agents.report import AGENT, paired_report
from agents.search.stages import CoordinateStage, EvolutionStage, Stage
from agents.search.steering import SteeringSearch
from agents.settings import IndexSettings
from llmsched_env.envs.rewards import ENGINE_REWARDS
from llmsched_env.evaluation.cases import TEST_SEEDS, TUNING_SEEDS
from llmsched_env.evaluation.savings import FLOOR
from llmsched_env.objectives import OBJECTIVES, Objective
from llmsched_env.policies.learned_index import PERCEPTRON, load, with_weights
from llmsched_env.policies.weights import load_weights
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice

REFERENCES = {"slo_attainment": "slos_serve", "mean_e2el": "slo_first"}
"""By objective, the baseline that validation compares with."""
TESTED = ("slos_serve", "slo_first", "qoserve", "sarathi", "vllm_v1")
"""Baselines of the report; the benchmark tunes them, and more."""
_OBJECTIVE_OF = {reward.name: reward.objective for reward in ENGINE_REWARDS if reward.objective in REFERENCES}
_WIDTH = 0.3  # first width of the coordinate search, in spreads of the numbers
_EVEN = 0.05  # added to the spread of log costs over candidates, so that cases without a spread count little


class SteeredIndex(SteeringSearch):
    """Weights of the network that sets the numbers of the index policy.

    Args:
        config: what to train.
    """

    perceptron = PERCEPTRON

    def __init__(self, config: Training) -> None:
        super().__init__(config)
        reward = check_choice("reward of an index policy", config.reward, tuple(_OBJECTIVE_OF))
        self.objective = _OBJECTIVE_OF[reward] or ""
        self.reference = REFERENCES[self.objective]
        for name in config.env_arguments:
            check_choice("name in env_arguments", name, ("pausing",))
        self.pausing = bool(config.env_arguments.get("pausing", False))
        self._cases: IndexCases = SuiteCases() if config.workload == SUITE else OwnCases(config)

    @property
    def _settings(self) -> IndexSettings:
        settings = self.config.settings
        assert isinstance(settings, IndexSettings)
        return settings

    @property
    def _evolution(self) -> tuple[IndexStage, ...]:
        """The stages of evolution strategies."""
        stages, generations = STAGES[self.objective], self._settings.generations
        return tuple(replace(stage, generations=own) for stage, own in zip(stages, generations, strict=True))

    def first(self) -> dict[str, Any]:
        """A digest of what the search begins with: constants and files may change."""
        return {"first_weights": hashlib.sha256(self.first_weights().tobytes()).hexdigest()}

    def first_weights(self) -> np.ndarray:
        start = self.config.start
        first = first_weights(self.objective, self.pausing)
        if start == TUNED_START:
            return first
        fixed = [PERCEPTRON.output_place(name) for name in ("begun", "blocking")]
        weights = load_weights(start, PERCEPTRON)
        PERCEPTRON.output_layer(weights)[fixed] = PERCEPTRON.output_layer(first)[fixed]  # pausing is not up to the file
        return weights

    def stages(self) -> Sequence[Stage]:
        settings, seed = self._settings, self.config.seed
        places = [searched(stage, self.pausing) for stage in self._evolution]
        found: list[Stage] = [
            EvolutionStage(stage, seed + k, self.fitness, settings.validate_every, places[k], settings.average)
            for k, stage in enumerate(self._evolution)
        ]
        return [*found, CoordinateStage(settings.sweeps, _WIDTH, seed, self.sweep_costs, places[-1])]

    def fitness(self, candidates: np.ndarray, generation: int) -> np.ndarray:
        """Each case has the same weight, however much the candidates differ in it."""
        logs = self._log_costs(candidates, self._cases.of_generation(self.config, self._settings, generation))
        return np.asarray(-((logs - logs.mean(axis=0)) / (logs.std(axis=0) + _EVEN)).mean(axis=1))

    def sweep_costs(self, sweep: int) -> Callable[[np.ndarray], np.ndarray]:
        """Logarithms of the costs f8[k, cases] on the cases of a sweep, as a function of weights f8[k, size]."""
        cases = self._cases.of_sweep(self.config, self._settings, sweep)
        return lambda candidates: self._log_costs(candidates, cases)

    def _log_costs(self, candidates: np.ndarray, cases: Sequence[IndexCase]) -> np.ndarray:
        found = costs([with_weights(weights) for weights in candidates], cases, self.objective)
        return np.asarray(np.log(found + FLOOR[self.objective]))

    @cached_property
    def _held(self) -> list[IndexCase]:
        return self._cases.held(self.config, TUNING_SEEDS, self.config.tuning_seeds)

    def held_costs(self, policy: np.ndarray | None) -> np.ndarray:
        scheduler = baselines.get(self.reference) if policy is None else with_weights(policy)
        return np.asarray(costs([scheduler], self._held, self.objective)[0])

    def report(self, best: Path, folder: Path, command: str) -> str:
        cases = self._cases.held(self.config, TEST_SEEDS, self.config.seeds)
        schedulers: dict[str, Scheduler] = {AGENT: load(best)} | {name: baselines.get(name) for name in TESTED}
        rows = dict(zip(schedulers, costs(list(schedulers.values()), cases, self.objective), strict=True))
        facts = [("Command", command), ("Workload", self.config.workload), ("Runs", f"{len(cases)} on test seeds")]
        return paired_report(rows, _cost(OBJECTIVES[self.objective]), folder, facts)


def _cost(objective: Objective) -> Objective:
    """What `index_cases.costs` measures for an objective: seconds, or the share of requests that miss a target."""
    if not objective.larger_is_better:
        return replace(objective, scale=1.0)
    return replace(objective, title="Missed targets", larger_is_better=False)
