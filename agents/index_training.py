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
from agents.steered import output_layer, steered, within_four_knobs
from llmsched_env.evaluation.cases import map_runs
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.evaluation.seeds import TRAINING_SEEDS, TUNING_SEEDS
from llmsched_env.evaluation.suite import TRAINING, Site
from llmsched_env.policies import index as ix
from llmsched_env.policies.index import NUM_INDEX
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
_VALIDATION_LOADS, _VALIDATION_SEEDS = (0.8, 0.95, 1.1), 2
_SEED_BLOCK = 9_000  # training seeds are drawn from the first so many
_INPUTS = (4, 5, 8, 14, 19, 2, 1, 15, 16, 17, 18, 20, 21, 22, 23, 24)  # the feature that each hidden unit looks at
_WEIGHT_SCALE = 0.7  # of weights of hidden units, against that of biases
_EVEN = 0.05  # added to the spread of a case over the candidates, by which its logarithms of costs are divided


@dataclass(frozen=True, slots=True)
class Stage:
    """A search.

    Attributes:
        generations: how many.
        inputs: hidden units whose output weights are searched, beside the biases; 0: constant numbers.
        noise: of the search distribution.
        learning_rate: at the start; decays linearly to a tenth.
        pairs: of candidates.
    """

    generations: int
    inputs: int
    noise: float
    learning_rate: float
    pairs: int

    def __post_init__(self) -> None:
        check_integer("generations", self.generations, at_least=1)
        check_integer("inputs", self.inputs, at_least=0, at_most=HIDDEN)


STAGES = {
    "slo_attainment": (Stage(100, 0, 0.15, 0.05, 12), Stage(150, 6, 0.1, 0.01, 16)),
    "mean_e2el": (Stage(220, 0, 0.15, 0.06, 12), Stage(40, 6, 0.1, 0.01, 16)),
}
"""Of the policies that come with the project, by objective."""


@dataclass(frozen=True, slots=True)
class IndexTraining:
    """How a network is trained: first the constant numbers that serve all cases best, then what they depend on.

    Attributes:
        objective: "slo_attainment" or "mean_e2el".
        stages: one after the other, each from what the one before it found; None for those of `STAGES`.
        seed: of everything random.
        sites: cases of a generation on sites of the suite, each on another one, and
        random_sites: on random ones.
        loads: range of their loads.
        horizon: s of arrivals at sites of the suite.
        validate_every: generations.
        average: share of the last generations of a stage over which the weights are averaged.
    """

    objective: str = "slo_attainment"
    stages: tuple[Stage, ...] | None = None
    seed: int = 0
    sites: int = 5
    random_sites: int = 5
    loads: tuple[float, float] = (0.75, 1.15)
    horizon: float = 60.0
    validate_every: int = 20
    average: float = 0.15

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, tuple(REFERENCES))
        if self.stages is None:
            object.__setattr__(self, "stages", STAGES[self.objective])


def first_weights(objective: str = "slo_attainment") -> np.ndarray:
    """Hidden units that pass on a feature each, and an output layer of biases: an index policy of constant numbers."""
    weights = np.zeros(NUM_WEIGHTS)
    weights[[h * (NUM_FEATURES + 1) + feature for h, feature in enumerate(_INPUTS)]] = 1.0
    biases = output_layer(weights)[:, -1]
    for k, number in _FIRST_NUMBERS[objective].items():
        wanted = np.log(number) if EXPONENTIAL[k] else number
        biases[k] = (wanted - START[k]) / SPREAD[k]
    return weights


def _searched(stage: Stage) -> tuple[np.ndarray, np.ndarray]:
    """Places of the weights that a stage searches, and their scales."""
    places = output_layer(np.arange(NUM_WEIGHTS))
    scales = np.append(np.full(stage.inputs, _WEIGHT_SCALE), 1.0)
    return places[:, [*range(stage.inputs), HIDDEN]].ravel(), np.tile(scales, NUM_INDEX)


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
    """Search stage by stage, going on from `folder` if a search is there; returns the weights.

    They are the mean of the centers of the last generations, which wander around what is best. `folder` holds
    `pausing.npz` with them, `best.npz` with begun prompts first (`within_four_knobs`), `last.npz` (to go on from) and
    TensorBoard's logs. Validation is on a fixed set of tuning seeds: all sites of the suite to train on, and random
    ones that training never draws.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = _validation()
    target = costs([baselines.get(REFERENCES[config.objective])], held, config.objective)[0]
    search = _Search.opened(config, folder / "last.npz")
    with SummaryWriter(str(folder / "tensorboard"), purge_step=search.total) as log:

        def validate(search: _Search) -> None:
            own = costs([steered(search.weights(averaged=True))], held, config.objective)[0]
            gains = saved(own, target, config.objective)
            log.add_scalar("validation/saved", gains.mean(), search.total)
            log.add_scalar("validation/worst_case", gains.min(), search.total)
            log.add_scalar(f"validation/{config.objective}_cost", own.mean(), search.total)
            suite = gains[: len(TRAINING) * len(_VALIDATION_LOADS) * _VALIDATION_SEEDS].mean()
            say(
                f"generation {search.total:4d}, {search.elapsed():5.0f} s: cost {own.mean():.5f}, reference "
                f"{target.mean():.5f}, saved {gains.mean():+.4f} (suite {suite:+.4f})"
            )
            found = search.weights(averaged=True)
            np.savez(folder / "pausing.npz", weights=found, generation=search.total)
            np.savez(folder / "best.npz", weights=within_four_knobs(found), generation=search.total)
            search.save(folder / "last.npz")

        while True:
            begins = search.number > 0 and search.strategy.generation == 0  # validated as the end of the stage before
            if search.over or (search.total % config.validate_every == 0 and not begins):
                validate(search)
            if not search.over:
                search.generation()
            elif (following := search.next()) is not None:
                search = following
            else:
                return search.weights(averaged=True)


class _Search:
    """Where a training stands: the stage, its strategy, the mean of its last centers, and where it began."""

    def __init__(self, config: IndexTraining, stage: int, first: np.ndarray) -> None:
        self.config, self.number, self.first = config, stage, first
        self.stage = config.stages[stage]
        self.places, self.scales = _searched(self.stage)
        self.mean = np.zeros(len(self.places))
        self.strategy = EvolutionStrategy(
            self.mean, self.stage.noise, self.stage.learning_rate, self.stage.pairs, seed=config.seed + stage
        )
        self.before, self.started = 0.0, time.monotonic()

    @classmethod
    def opened(cls, config: IndexTraining, path: Path) -> _Search:
        if not path.exists():
            return cls(config, 0, first_weights(config.objective))
        strategy, more = EvolutionStrategy.opened(path)
        search = cls(config, int(more["stage"]), more["first_weights"])
        search.strategy, search.mean, search.before = strategy, more["mean"], float(more["seconds"])
        return search

    def save(self, path: Path) -> None:
        more = {"mean": self.mean, "first_weights": self.first, "stage": self.number, "seconds": self.elapsed()}
        self.strategy.save(path, **more)

    @property
    def total(self) -> int:
        """Generations of all stages."""
        return sum(stage.generations for stage in self.config.stages[: self.number]) + self.strategy.generation

    @property
    def over(self) -> bool:
        """Whether the stage is."""
        return self.strategy.generation >= self.stage.generations

    def next(self) -> _Search | None:
        """The search of the next stage, from what this one found; None after the last."""
        if self.number + 1 == len(self.config.stages):
            return None
        search = _Search(self.config, self.number + 1, self.weights(averaged=True))
        search.before = self.elapsed()
        return search

    @property
    def _begin(self) -> int:
        return round((1 - self.config.average) * self.stage.generations)  # of averaging

    def elapsed(self) -> float:
        return self.before + time.monotonic() - self.started

    def weights(self, averaged: bool = False, step: np.ndarray | None = None) -> np.ndarray:
        """Of the center, of the mean of the last ones (once there is one), or of a candidate."""
        if step is None:
            step = self.mean if averaged and self.strategy.generation > self._begin else self.strategy.center
        weights = self.first.copy()
        weights[self.places] += self.scales * step
        return weights

    def generation(self) -> None:
        """Ask, evaluate, tell."""
        config, strategy, stage = self.config, self.strategy, self.stage
        strategy.learning_rate = stage.learning_rate * (1 - 0.9 * strategy.generation / stage.generations)
        candidates = [steered(self.weights(step=step)) for step in strategy.ask()]
        logs = np.log(costs(candidates, _draw(config, self.total), config.objective) + _FLOOR[config.objective])
        # Each case counts alike, however much or little the candidates differ in it.
        strategy.tell(-((logs - logs.mean(axis=0)) / (logs.std(axis=0) + _EVEN)).mean(axis=1))
        if strategy.generation > self._begin:
            self.mean = self.mean + (strategy.center - self.mean) / (strategy.generation - self._begin)


def _validation() -> list[Case]:
    held: list[Case] = [
        (site, site.at(load), TUNING_SEEDS + k)
        for site in TRAINING
        for load in _VALIDATION_LOADS
        for k in range(_VALIDATION_SEEDS)
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


def main() -> None:
    """`python -m agents.index_training --objective slo_attainment --out FOLDER`."""
    import argparse

    parser = argparse.ArgumentParser(description="Train a network that steers the index policy.")
    parser.add_argument("--objective", choices=tuple(REFERENCES), default="slo_attainment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = IndexTraining(args.objective, seed=args.seed)
    print(asdict(config))
    train(config, args.out, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
