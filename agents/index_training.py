"""Train the network that steers the index policy: evolution strategies on pairs of runs with shared requests.

A candidate is measured by how much better it does than a reference scheduler on the very same requests: the logarithm
of the ratio of both costs. So a case counts by the share of its cost that is saved, whether many or few requests miss
their targets in it, and the noise of the workload cancels. Half of the cases are drawn from the sites of the suite to
train on, half from random ones: a policy that is to serve unknown workloads has to see many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

import baselines
from agents.evolution import EvolutionStrategy
from agents.random_sites import RandomSite, random_site
from agents.steered import steered
from llmsched_env.evaluation.cases import map_runs
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.evaluation.seeds import TRAINING_SEEDS, TUNING_SEEDS
from llmsched_env.evaluation.suite import TRAINING, Site
from llmsched_env.policies import index as ix
from llmsched_env.policies.learned import EXPONENTIAL, HIDDEN, NUM_WEIGHTS, SPREAD, START
from llmsched_env.policies.queue_state import NUM_FEATURES
from llmsched_env.simulator.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice, check_integer
from llmsched_env.workloads import Workload

Case = tuple[Site | RandomSite, Workload, int]
"""(where, the workload at its load, the seed)."""

REFERENCES = {"slo_attainment": "slos_serve", "mean_e2el": "slo_first"}
_FLOOR = {"slo_attainment": 0.003, "mean_e2el": 0.0}  # added to both costs: a single missed request is no landslide
_FIRST_NUMBERS: dict[str, dict[int, float]] = {
    "slo_attainment": {},
    "mean_e2el": {
        ix.BY_LENGTH: 0.0,
        ix.BY_URGENCY: 0.0,
        ix.BY_WORK: 1.0,
        ix.LATE: 0.0,
        ix.OUTSIDE: 0.0,
        ix.DECLINE: 0.0,
        ix.STEP_SHARE: 4.0,
        ix.LATE_SHARE: 1.0,
        ix.SPARE: 0.01,
        ix.LEAST_CHUNK: 512.0,
    },
}
"""Where they differ from the start that the network's outputs are measured from: no target matters to the latency."""
_VALIDATION_LOADS = (0.8, 0.95, 1.1)
_SEED_BLOCK = 9_000  # training seeds are drawn from the first so many


@dataclass(frozen=True, slots=True)
class IndexTraining:
    """How a network is trained.

    Attributes:
        objective: "slo_attainment" or "mean_e2el".
        generations: how many.
        seed: of everything random.
        sites: cases of a generation on sites of the suite, each on another one, and
        random_sites: on random ones.
        loads: range of their loads.
        horizon: s of arrivals at sites of the suite.
        noise: of the search distribution.
        learning_rate: at the start; decays linearly to a tenth.
        pairs: of candidates.
        decay: of the weights.
        validate_every: generations.
        average: share of the last generations over which the shipped weights are averaged.
    """

    objective: str = "slo_attainment"
    generations: int = 600
    seed: int = 0
    sites: int = 5
    random_sites: int = 5
    loads: tuple[float, float] = (0.75, 1.15)
    horizon: float = 60.0
    noise: float = 0.08
    learning_rate: float = 0.03
    pairs: int = 12
    decay: float = 0.9998
    validate_every: int = 25
    average: float = 0.2

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, tuple(REFERENCES))
        check_integer("generations", self.generations, at_least=1)


def first_weights(seed: int, objective: str = "slo_attainment") -> np.ndarray:
    """Random hidden units and an output layer of biases: at first the policy is an index policy of constant numbers."""
    weights = np.zeros(NUM_WEIGHTS)
    hidden = np.random.default_rng([seed, 1]).normal(0, NUM_FEATURES**-0.5, (HIDDEN, NUM_FEATURES + 1))
    hidden[:, -1] = 0.0
    weights[: hidden.size] = hidden.ravel()
    for k, number in _FIRST_NUMBERS[objective].items():
        wanted = np.log(number) if EXPONENTIAL[k] else number
        weights[hidden.size + (k + 1) * (HIDDEN + 1) - 1] = (wanted - START[k]) / SPREAD[k]
    return weights


def costs(schedulers: Sequence[Scheduler], cases: Sequence[Case], objective: str) -> np.ndarray:
    """f8[schedulers, cases]: the share of requests that miss a target, or the mean E2E latency in s."""
    chosen = OBJECTIVES[objective]

    def cost(result: Result) -> float:
        value, _ = chosen.of_run(result, None, float(result.end))
        return 1.0 - value if chosen.larger_is_better else chosen.scale * value

    runs = [(workload, site.engine, seed) for site, workload, seed in cases]
    return np.array(map_runs(schedulers, runs, cost, record="requests"))


def saved(own: np.ndarray, reference: np.ndarray, objective: str) -> np.ndarray:
    """Logarithm of the reference's cost over its own, by case: above 0 is better."""
    floor = _FLOOR[objective]
    return np.log((reference + floor) / (own + floor))


def train(config: IndexTraining, folder: Path, say: Callable[[str], None] = print) -> np.ndarray:
    """Search for so many generations, going on from `folder` if a search is there; returns the weights.

    They are the mean of the centers of the last generations, which wander around what is best. `folder` holds
    `best.npz` with them, `last.npz` (to go on from) and TensorBoard's logs. Validation is on a fixed set of tuning
    seeds: all sites of the suite to train on, and random ones that training never draws.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = _validation()
    target = costs([baselines.get(REFERENCES[config.objective])], held, config.objective)[0]
    strategy, mean, before = _opened(config, folder)
    begin = round((1 - config.average) * config.generations)  # of averaging
    started = time.monotonic()
    with SummaryWriter(str(folder / "tensorboard"), purge_step=strategy.generation) as log:
        while True:
            generation = strategy.generation
            if generation % config.validate_every == 0 or generation == config.generations:
                seconds = before + time.monotonic() - started
                weights = strategy.center if generation <= begin else mean
                own = costs([steered(weights)], held, config.objective)[0]
                gains = saved(own, target, config.objective)
                log.add_scalar("validation/saved", gains.mean(), generation)
                log.add_scalar("validation/worst_case", gains.min(), generation)
                log.add_scalar(f"validation/{config.objective}_cost", own.mean(), generation)
                say(
                    f"generation {generation:4d}, {seconds:5.0f} s: cost {own.mean():.5f}, reference "
                    f"{target.mean():.5f}, saved {gains.mean():+.4f} (suite {gains[: -len(held) // 3].mean():+.4f})"
                )
                np.savez(folder / "best.npz", weights=weights, value=gains.mean(), generation=generation)
                _keep(strategy, mean, seconds, folder)
            if generation >= config.generations:
                return weights
            strategy.learning_rate = config.learning_rate * (1 - 0.9 * generation / config.generations)
            found = costs(list(map(steered, strategy.ask())), _draw(config, generation), config.objective)
            strategy.tell(-np.log(found + _FLOOR[config.objective]).mean(axis=1))
            if strategy.generation > begin:
                mean += (strategy.center - mean) / (strategy.generation - begin)


def _validation() -> list[Case]:
    held: list[Case] = [
        (site, site.at(load), TUNING_SEEDS + k) for site in TRAINING for load in _VALIDATION_LOADS for k in range(2)
    ]
    rng = np.random.default_rng(TUNING_SEEDS)
    return held + _random_cases(rng, len(held) // 2, TUNING_SEEDS, (0.75, 1.15))


def _draw(config: IndexTraining, generation: int) -> list[Case]:
    rng = np.random.default_rng([config.seed, 2, generation])
    picked = rng.choice(len(TRAINING), min(config.sites, len(TRAINING)), replace=False)
    cases: list[Case] = [
        (
            TRAINING[k],
            TRAINING[k].at(rng.uniform(*config.loads), config.horizon),
            int(TRAINING_SEEDS + rng.integers(_SEED_BLOCK)),
        )
        for k in picked
    ]
    return cases + _random_cases(rng, config.random_sites, TRAINING_SEEDS, config.loads)


def _random_cases(rng: np.random.Generator, count: int, first: int, loads: tuple[float, float]) -> list[Case]:
    drawn = []
    for _ in range(count):
        site = random_site(rng)
        drawn.append((site, site.at(rng.uniform(*loads)), int(first + rng.integers(_SEED_BLOCK))))
    return drawn


def _opened(config: IndexTraining, folder: Path) -> tuple[EvolutionStrategy, np.ndarray, float]:
    """The search, the mean of its last centers, and the seconds it took."""
    path = folder / "last.npz"
    if path.exists():
        strategy, kept = EvolutionStrategy.opened(path)
        return strategy, kept["mean"], float(kept["seconds"])
    weights = first_weights(config.seed, config.objective)
    strategy = EvolutionStrategy(
        weights, config.noise, config.learning_rate, config.pairs, config.decay, seed=config.seed
    )
    return strategy, np.zeros_like(weights), 0.0


def _keep(strategy: EvolutionStrategy, mean: np.ndarray, seconds: float, folder: Path) -> None:
    strategy.save(folder / "last.npz", mean=mean, seconds=seconds)


def main() -> None:
    """`python -m agents.index_training --objective slo_attainment --out FOLDER`."""
    import argparse

    parser = argparse.ArgumentParser(description="Train a network that steers the index policy.")
    parser.add_argument("--objective", choices=tuple(REFERENCES), default="slo_attainment")
    parser.add_argument("--generations", type=int, default=IndexTraining.generations)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = IndexTraining(args.objective, args.generations, args.seed)
    print(asdict(config))
    train(config, args.out, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
