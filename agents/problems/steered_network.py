"""The index policy of the Rybko-Stolyar network, by evolution strategies.

The measure is the logarithm of the mean number of tasks present. All candidates of a generation serve the same tasks,
since the noise of arrivals is larger than their differences. Validation, always on the same tasks, compares with
"entering first", the best of the class priorities. The number of generations ends a training, not the clock, so that a
seed gives the same policy on any machine.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from agents.config import Training
from agents.problems.network import MEAN_TASKS, RUN_SECONDS, facts, rybko_stolyar_tasks, tasks_present
from agents.report import AGENT, paired_report
from agents.search.steering import SteeringSearch
from agents.settings import ESSettings
from llmsched_env.evaluation.benchmark.network_cases import PRIORITIES
from llmsched_env.evaluation.cases import SEED_BLOCK, TEST_SEEDS, TRAINING_SEEDS, TUNING_SEEDS, seed_range
from llmsched_env.evaluation.savings import saved
from llmsched_env.policies.learned_network import PERCEPTRON, load, with_weights
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.validation import check_choice, check_number
from llmsched_env.workloads.rybko_stolyar import rybko_stolyar


class SteeredNetwork(SteeringSearch):
    """Weights of the index policy of networks."""

    perceptron = PERCEPTRON
    reference = "entering first"

    def __init__(self, config: Training) -> None:
        super().__init__(config)
        check_choice("workload of AgentNetwork", config.workload, ("rybko-stolyar",))
        check_choice("reward", config.reward, ("tasks",))
        self._loads = [check_number("load", load, above=0) for load in config.load]  # type: ignore[arg-type]

    def fitness(self, candidates: np.ndarray, generation: int) -> np.ndarray:
        """Mean logarithm of the tasks present under the reference over one's own.

        The reference does not change the order of candidates; it makes the log comparable over generations.
        """
        rules = {str(k): with_weights(weights) for k, weights in enumerate(candidates)}
        rules |= {self.reference: PRIORITIES[self.reference]}
        found = np.array(list(tasks_present(rules, self._tasks(generation), self.config.horizon).values()))
        return np.asarray(saved(found[:-1], found[-1]).mean(axis=1))

    def _tasks(self, generation: int) -> list[TaskTable]:
        config, settings = self.config, self.config.settings
        assert isinstance(settings, ESSettings)
        rng, (low, high) = np.random.default_rng([config.seed, 2, generation]), config.train_load
        return [
            rybko_stolyar(rng.uniform(low, high), config.horizon).sample(TRAINING_SEEDS + int(rng.integers(SEED_BLOCK)))
            for _ in range(settings.runs)
        ]

    @cached_property
    def _held(self) -> list[TaskTable]:
        return rybko_stolyar_tasks(self._loads, seed_range(TUNING_SEEDS, self.config.tuning_seeds))

    def held_costs(self, policy: np.ndarray | None) -> np.ndarray:
        rule = PRIORITIES[self.reference] if policy is None else with_weights(policy)
        return tasks_present({"": rule}, self._held, RUN_SECONDS)[""]

    def report(self, best: Path, folder: Path, command: str) -> str:
        tasks = rybko_stolyar_tasks(self._loads, seed_range(TEST_SEEDS, self.config.seeds))
        rows = tasks_present({AGENT: load(best)} | PRIORITIES, tasks)
        return paired_report(rows, MEAN_TASKS, folder, facts(self.config, command, len(tasks)))
