"""Train the network index policy on the Rybko-Stolyar network: evolution strategies, all candidates on the same tasks.

A candidate is measured by the logarithm of mean tasks present, on the very same tasks as the others of its generation:
the noise of arrivals would drown the differences. Only their order counts. What a candidate saves beside "entering
first", the best priority among classes, is for the log, and for validation, whose tasks stay the same. The number of
generations, not the clock, ends a training, so that a seed gives the same policy on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from agents.evolution_search import Validation, check_search, search
from agents.folders import keep_config
from agents.network_comparison import PRIORITIES, mean_tasks
from agents.weights import random_hidden
from llmsched_env.envs.network_runner import UNROUTED
from llmsched_env.evaluation.cases import map_cases
from llmsched_env.evaluation.seeds import TRAINING_SEEDS, TUNING_SEEDS
from llmsched_env.policies import learned_network, pretrained
from llmsched_env.policies.learned_network import PERCEPTRON
from llmsched_env.policies.learned_network import with_weights as policy
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.validation import check_integer, check_number, check_range
from llmsched_env.workloads.rybko_stolyar import RYBKO_STOLYAR_ENGINES, rybko_stolyar
from llmsched_env.workloads.tasks import TaskTable

PRETRAINED = pretrained.file_of(pretrained.NETWORK)
"""The policy that is shipped."""

REFERENCE = PRIORITIES["entering first"]
_SEED_BLOCK = 9_000  # training seeds are drawn from the first so many


@dataclass(frozen=True, slots=True)
class NetworkTraining:
    """How a network policy is trained.

    Attributes:
        generations: after which it ends.
        seed: of everything random.
        loads: range of the loads of a generation's runs.
        runs: of each candidate in a generation.
        horizon: s of each.
        noise: of the search distribution at the start; shrinks linearly to a fifth.
        learning_rate: at the start; shrinks linearly to a tenth.
        pairs: of candidates.
        decay: of the weights.
        validate_every: generations.
        validation_runs: on tuning seeds.
        validation_load: of these runs.
        validation_horizon: s of each.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    generations: int = 120
    seed: int = 0
    loads: tuple[float, float] = (0.85, 0.95)
    runs: int = 4
    horizon: float = 1500.0
    noise: float = 0.1
    learning_rate: float = 0.05
    pairs: int = 12
    decay: float = 0.9995
    validate_every: int = 10
    validation_runs: int = 8
    validation_load: float = 0.9
    validation_horizon: float = 4500.0

    def __post_init__(self) -> None:
        for name in ("generations", "runs", "validate_every", "validation_runs"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("seed", self.seed, at_least=0)
        check_range("loads", self.loads, above=0)
        for name in ("horizon", "validation_load", "validation_horizon"):
            check_number(name, getattr(self, name), above=0)
        check_search(self)


def first_weights(seed: int) -> np.ndarray:
    """Random hidden units and an output layer of zeros: at first decodes go first, then prompts in order of number."""
    return random_hidden(seed, PERCEPTRON)


def load(path: str | Path = PRETRAINED) -> Scheduler:
    """The scheduler that a training has found; by default the one that is shipped.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights of this network.
    """
    return learned_network.load(path)


def costs(schedulers: Sequence[Scheduler], tables: Sequence[TaskTable], horizon: float) -> np.ndarray:
    """f8[schedulers, tables]: mean tasks present in [0, horizon] s."""

    def run(scheduler: Scheduler, table: TaskTable) -> float:
        return mean_tasks(
            simulate_network(scheduler, table, RYBKO_STOLYAR_ENGINES, UNROUTED, horizon=horizon, record="requests")
        )

    return np.array(map_cases(run, schedulers, [(table,) for table in tables]))


def train(config: NetworkTraining, folder: Path, say: Callable[[str], None] = print) -> np.ndarray:
    """Search for so many generations, going on from `folder` if a search is there; returns the best weights.

    The best are those with the best validation. `folder` holds `config.json`, `best.npz`, `last.npz` (to go on from)
    and TensorBoard's logs.

    Raises:
        ValueError: if another training is in the folder.
    """
    keep_config(folder, asdict(config))
    tasks = rybko_stolyar(config.validation_load, config.validation_horizon)
    held = [tasks.sample(TUNING_SEEDS + k) for k in range(config.validation_runs)]
    target = costs([REFERENCE], held, config.validation_horizon)[0]

    def validate(weights: np.ndarray) -> Validation:
        own = costs([policy(weights)], held, config.validation_horizon)[0]
        numbers = {"mean_tasks": own.mean(), "reference_mean_tasks": target.mean()}
        text = f"{own.mean():.3f} tasks present, reference {target.mean():.3f}"
        return Validation(float(np.log(target / own).mean()), numbers, text)

    def saved(candidates: np.ndarray, generation: int) -> np.ndarray:
        found = costs([*map(policy, candidates), REFERENCE], _draw(config, generation), config.horizon)
        return np.log(found[-1] / found[:-1]).mean(axis=1)  # the reference leaves their order as it is

    return search(config, folder, PERCEPTRON, first_weights(config.seed), saved, validate, say)


def _draw(config: NetworkTraining, generation: int) -> list[TaskTable]:
    rng = np.random.default_rng([config.seed, 2, generation])
    return [
        rybko_stolyar(rng.uniform(*config.loads), config.horizon).sample(
            TRAINING_SEEDS + int(rng.integers(_SEED_BLOCK))
        )
        for _ in range(config.runs)
    ]
