"""The index policy of the Rybko-Stolyar network, by evolution strategies.

The measure is the logarithm of the mean number of tasks present. All candidates of a generation serve the same tasks,
since the noise of arrivals is larger than their differences. Validation, always on the same tasks, compares with
"entering first", the best of the class priorities. The number of generations ends a training, not the clock, so that a
seed gives the same policy on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from agents.run import Say, Validation
from agents.search.learner import SearchProblem, search
from agents.search.random_start import random_hidden
from agents.search.stages import EvolutionSettings, EvolutionStage, Stage
from llmsched_env.envs.network_runner import UNROUTED
from llmsched_env.evaluation.benchmark.network_cases import PRIORITIES, mean_tasks
from llmsched_env.evaluation.cases import TRAINING_SEEDS, TUNING_SEEDS, map_cases
from llmsched_env.policies.learned_network import PERCEPTRON, with_weights
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.validation import check_integer, check_number, check_range
from llmsched_env.workloads.rybko_stolyar import RYBKO_STOLYAR_ENGINES, rybko_stolyar

REFERENCE = PRIORITIES["entering first"]
_SEED_BLOCK = 9_000  # training seeds are drawn from the first of this number


@dataclass(frozen=True, slots=True)
class NetworkTraining:
    """How a network policy is trained.

    Attributes:
        search: how long and how widely evolution strategies search.
        seed: of everything random.
        loads: range of the loads of a generation's runs.
        runs: of each candidate in a generation.
        horizon: s of each.
        validate_every: generations.
        validation_runs: on tuning seeds.
        validation_load: of these runs.
        validation_horizon: s of each.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    search: EvolutionSettings = EvolutionSettings(120)
    seed: int = 0
    loads: tuple[float, float] = (0.85, 0.95)
    runs: int = 4
    horizon: float = 1500.0
    validate_every: int = 10
    validation_runs: int = 8
    validation_load: float = 0.9
    validation_horizon: float = 4500.0

    def __post_init__(self) -> None:
        for name in ("runs", "validate_every", "validation_runs"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("seed", self.seed, at_least=0)
        check_range("loads", self.loads, above=0)
        for name in ("horizon", "validation_load", "validation_horizon"):
            check_number(name, getattr(self, name), above=0)
        check_integer("generations", self.search.generations, at_least=1)


def first_weights(seed: int) -> np.ndarray:
    """f8[size]: random hidden units and an output layer of zeros, so decodes go first, then prompts in order."""
    return random_hidden(seed, PERCEPTRON)


def costs(schedulers: Sequence[Scheduler], tables: Sequence[TaskTable], horizon: float) -> np.ndarray:
    """f8[schedulers, tables]: mean tasks present in [0, horizon] s."""

    def run(scheduler: Scheduler, table: TaskTable) -> float:
        return mean_tasks(
            simulate_network(scheduler, table, RYBKO_STOLYAR_ENGINES, UNROUTED, horizon=horizon, record="requests")
        )

    return np.array(map_cases(run, schedulers, [(table,) for table in tables]))


class NetworkProblem(SearchProblem):
    """Weights of the index policy of networks."""

    network = PERCEPTRON

    def __init__(self, config: NetworkTraining) -> None:
        self.config = config
        self.validate_every = config.validate_every

    def first_weights(self) -> np.ndarray:
        return first_weights(self.config.seed)

    def stages(self) -> list[Stage]:
        return [EvolutionStage(self.config.search, self.config.seed, self.fitness)]

    def fitness(self, candidates: np.ndarray, generation: int) -> np.ndarray:
        """Of candidates f8[k, size]: mean logarithm of the tasks present under the reference over one's own.

        The reference does not change the order of candidates; it makes the log comparable over generations.
        """
        schedulers = [*map(with_weights, candidates), REFERENCE]
        found = costs(schedulers, self._tasks(generation), self.config.horizon)
        return np.asarray(np.log(found[-1] / found[:-1]).mean(axis=1))

    def _tasks(self, generation: int) -> list[TaskTable]:
        config = self.config
        rng = np.random.default_rng([config.seed, 2, generation])
        return [
            rybko_stolyar(rng.uniform(*config.loads), config.horizon).sample(
                TRAINING_SEEDS + int(rng.integers(_SEED_BLOCK))
            )
            for _ in range(config.runs)
        ]

    @cached_property
    def _held(self) -> tuple[list[TaskTable], np.ndarray]:
        config = self.config
        tasks = rybko_stolyar(config.validation_load, config.validation_horizon)
        held = [tasks.sample(TUNING_SEEDS + k) for k in range(config.validation_runs)]
        return held, costs([REFERENCE], held, config.validation_horizon)[0]

    def validate(self, weights: np.ndarray) -> Validation:
        held, target = self._held
        own = costs([with_weights(weights)], held, self.config.validation_horizon)[0]
        saved = float(np.log(target / own).mean())
        numbers = {"saved": saved, "mean_tasks": own.mean(), "reference_mean_tasks": target.mean()}
        return Validation(saved, numbers, f"{own.mean():.3f} tasks present, reference {target.mean():.3f}")


def train(config: NetworkTraining, folder: Path, say: Say = print) -> np.ndarray:
    """Search, from where the folder stands; returns the best weights validated, f8[size].

    Raises:
        ValueError: if another training is in the folder.
    """
    return search(NetworkProblem(config), asdict(config), folder, say)
