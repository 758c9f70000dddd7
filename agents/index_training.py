"""Train the network that steers the index policy: evolution strategies on pairs of runs with shared requests.

A candidate is measured by how much better it does than a reference scheduler on the very same requests: the logarithm
of the ratio of both costs. So a case counts by the share of its cost that is saved, whether many or few requests miss
their targets in it, and the noise of the workload cancels. Half of the cases are drawn from the sites of the suite to
train on, half from random ones: a policy that is to serve unknown workloads has to see many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

import baselines
from agents.coordinate_search import CoordinateSearch
from agents.evolution import EvolutionStrategy
from agents.random_sites import RandomSite, random_site
from agents.steered import output_layer, steered, within_four_knobs
from agents.weights import read_weights
from llmsched_env.evaluation.cases import map_runs
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.evaluation.seeds import TRAINING_SEEDS, TUNING_SEEDS
from llmsched_env.evaluation.suite import TRAINING, Site
from llmsched_env.policies import index as ix
from llmsched_env.policies.index import NUM_INDEX
from llmsched_env.policies.learned import EXPONENTIAL, NUM_WEIGHTS, SPREAD, START
from llmsched_env.policies.queue_state import NUM_FEATURES
from llmsched_env.simulator.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice, check_integer
from llmsched_env.workloads import Workload

Case = tuple[Site | RandomSite, Workload, int]
"""(where, the workload at its load, the seed)."""

REFERENCES = {"slo_attainment": "slos_serve", "mean_e2el": "slo_first"}
_FLOOR = {"slo_attainment": 0.004, "mean_e2el": 0.0}  # added to both costs: a single missed request is no landslide
UNITS = {
    "kv_used": 4,
    "base": 5,
    "outside": 8,
    "even": 19,
    "growth": 21,
    "decoding": 3,
    "prefill_odds": 25,
    "queue": 26,
    "output_left": 27,
    "prompt": 28,
    "ttft_slack": 29,
    "tpot_slack": 30,
    "output": 31,
    "decode_rate": 15,
    "waiting": 0,
    "room": 24,
}
"""The feature (`queue_state.features`) that each hidden unit passes on."""
_FIRST_NUMBERS: dict[str, dict[int, float]] = {
    "slo_attainment": {
        ix.BY_LENGTH: 0.9,
        ix.BY_SLACK: 1.6,
        ix.BY_URGENCY: 1.7,
        ix.BY_WORK: 0.1,
        ix.LATE: 16.0,
        ix.DECLINE: 0.0,
        ix.CAUTION: 0.7,
        ix.MARGIN: 1.25,
        ix.STEP_SHARE: 0.92,
        ix.PACE_SHARE: 0.6,
        ix.SPEND: 0.03,
        ix.EXTRA: 6.0,
        ix.JOIN: 1.8,
        ix.LEAST_CHUNK: 28.0,
        ix.MOST_ACTIVE: 800.0,
        ix.LATE_SHARE: 0.0,
        ix.SPARE: 0.27,
    },
    "mean_e2el": {
        ix.BY_LENGTH: 0.0,
        ix.BY_URGENCY: 0.0,
        ix.BY_WORK: 1.0,
        ix.LATE: 0.0,
        ix.OUTSIDE: 0.0,
        ix.DECLINE: 0.0,
        ix.STEP_SHARE: 1e4,
        ix.LATE_SHARE: 1.0,
        ix.SPARE: 0.01,
        ix.KEEP: 0.03,
        ix.LEAST_CHUNK: 16.0,
        ix.EXTRA: 1.5,
        ix.JOIN: 1.5,
    },
}
"""Where they differ from the start that the network's outputs are measured from: no target matters to the latency."""
_FIRST_WEIGHTS: dict[str, dict[tuple[int, str], float]] = {
    "slo_attainment": {(ix.EXTRA, "kv_used"): -1.0},
    "mean_e2el": {(ix.EXTRA, "prefill_odds"): 1.0, (ix.JOIN, "prefill_odds"): 1.3},
}
"""For the latency, prefill beside decodes has to keep up with the prompts that arrive, and more of it only delays the
decodes; where memory is short, what counts is that decodes end and make room."""
_VALIDATION_LOADS, _VALIDATION_SEEDS = (0.8, 0.95, 1.1), 2
_SEED_BLOCK = 9_000  # training seeds are drawn from the first so many
_WEIGHT_SCALE = 1.0  # of weights of hidden units, against that of biases
_WIDTH = 0.3  # first width of the coordinate search, in spreads of the numbers
_EVEN = 0.05  # added to the spread of a case over the candidates, by which its logarithms of costs are divided


@dataclass(frozen=True, slots=True)
class Stage:
    """A search.

    Attributes:
        generations: how many.
        noise: of the search distribution.
        learning_rate: at the start; decays linearly to a tenth.
        pairs: of candidates.
        decay: by which what was found shrinks towards the start each generation, so that weights that hardly matter do
            not wander off.
        numbers: of the index policy, whose constants are searched.
        steered: those numbers that depend on something, and
        units: on what, by names of `UNITS`.
    """

    generations: int
    noise: float
    learning_rate: float
    pairs: int
    decay: float
    numbers: tuple[int, ...]
    steered: tuple[int, ...] = ()
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_integer("generations", self.generations, at_least=0)
        for unit in self.units:
            check_choice("units", unit, tuple(UNITS))


_FOR_SLO = tuple(k for k in range(NUM_INDEX) if k not in (ix.BEGUN, ix.MOST_CHUNK))
_FOR_LATENCY = (
    ix.BY_LENGTH,
    ix.BY_AGE,
    ix.BY_PREDICTION,
    ix.BY_WORK,
    ix.LEAST_CHUNK,
    ix.EXTRA,
    ix.JOIN,
    ix.MOST_ACTIVE,
    ix.KEEP,
)
STAGES = {
    "slo_attainment": (
        Stage(
            20,
            0.1,
            0.02,
            20,
            0.99,
            _FOR_SLO,
            (ix.EXTRA, ix.MARGIN, ix.BY_PREDICTION, ix.STEP_SHARE, ix.JOIN, ix.BY_LENGTH),
            ("kv_used", "base", "prefill_odds", "ttft_slack", "outside", "growth"),
        ),
    ),
    "mean_e2el": (
        Stage(
            60,
            0.15,
            0.04,
            16,
            0.99,
            _FOR_LATENCY,
            (ix.EXTRA, ix.JOIN),
            ("prefill_odds", "queue", "decoding", "output_left", "kv_used", "output", "base", "prompt"),
        ),
    ),
}
"""Of the policies that come with the project, by objective."""


@dataclass(frozen=True, slots=True)
class IndexTraining:
    """How a network is trained: first the constant numbers that serve all cases best, then what they depend on.

    Attributes:
        objective: "slo_attainment" or "mean_e2el".
        pausing: whether begun prompts may wait for others, which takes more than four knobs of vLLM.
        start: file of a policy to go on from, by the coordinate search alone; None: from constants.
        stages: one after the other, each from what the one before it found; None for those of `STAGES`.
        seed: of everything random.
        sites: cases of a generation on sites of the suite, each on another one, and
        random_sites: on random ones.
        loads: range of their loads.
        horizon: s of arrivals at sites of the suite.
        validate_every: generations.
        average: share of the last generations of a stage over which the weights are averaged.
        sweeps: of the coordinate search that follows, and
        cases: at each site of the suite in a sweep; half as many random ones come on top.
    """

    objective: str = "slo_attainment"
    pausing: bool = False
    start: Path | None = None
    stages: tuple[Stage, ...] | None = None
    seed: int = 0
    sites: int = 6
    random_sites: int = 5
    loads: tuple[float, float] = (0.75, 1.15)
    horizon: float = 60.0
    validate_every: int = 20
    average: float = 0.15
    sweeps: int = 6
    cases: int = 4

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, tuple(REFERENCES))
        if self.stages is None:
            stages = STAGES[self.objective]
            kept = stages if self.start is None else (replace(stages[-1], generations=0),)
            object.__setattr__(self, "stages", kept)


def first_weights(objective: str = "slo_attainment", pausing: bool = False) -> np.ndarray:
    """Hidden units that pass on a feature each, and an output layer of little but biases: an index policy, still."""
    weights = np.zeros(NUM_WEIGHTS)
    weights[[h * (NUM_FEATURES + 1) + feature for h, feature in enumerate(UNITS.values())]] = 1.0
    outputs = output_layer(weights)
    for k, number in _FIRST_NUMBERS[objective].items():
        wanted = np.log(number) if EXPONENTIAL[k] else number
        outputs[k, -1] = (wanted - START[k]) / SPREAD[k]
    for (k, unit), weight in _FIRST_WEIGHTS[objective].items():
        outputs[k, list(UNITS).index(unit)] = weight
    return weights if pausing else within_four_knobs(weights)


def _searched(stage: Stage, pausing: bool) -> tuple[np.ndarray, np.ndarray]:
    """Places of the weights that a stage searches, and their scales."""
    places = output_layer(np.arange(NUM_WEIGHTS))
    constants = places[[*stage.numbers, *([ix.BEGUN] if pausing else [])], -1]
    others = places[np.ix_(stage.steered, [list(UNITS).index(unit) for unit in stage.units])].ravel()
    scales = np.append(np.ones(len(constants)), np.full(len(others), _WEIGHT_SCALE))
    return np.append(constants, others).astype(int), scales


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
    `best.npz` with them, `last.npz` (to go on from) and TensorBoard's logs. Validation is on a fixed set of tuning
    seeds: all sites of the suite to train on, and random ones that training never draws.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = _validation()
    target = costs([baselines.get(REFERENCES[config.objective])], held, config.objective)[0]
    with SummaryWriter(str(folder / "tensorboard")) as log:

        def validate(weights: np.ndarray, step: int, when: str) -> None:
            own = costs([steered(weights)], held, config.objective)[0]
            gains = saved(own, target, config.objective)
            log.add_scalar("validation/saved", gains.mean(), step)
            log.add_scalar("validation/worst_case", gains.min(), step)
            log.add_scalar(f"validation/{config.objective}_cost", own.mean(), step)
            suite = gains[: len(TRAINING) * len(_VALIDATION_LOADS) * _VALIDATION_SEEDS].mean()
            say(
                f"{when}: cost {own.mean():.5f}, reference {target.mean():.5f}, "
                f"saved {gains.mean():+.4f} (suite {suite:+.4f})"
            )
            np.savez(folder / "best.npz", weights=weights)

        weights = _evolve(config, folder / "last.npz", validate)
        return _refine(config, weights, folder / "sweeps.npz", validate)


def _evolve(config: IndexTraining, path: Path, validate: Callable[[np.ndarray, int, str], None]) -> np.ndarray:
    """All stages of evolution strategies, going on from the file at `path`; returns the weights."""
    search = _Search.opened(config, path)
    while True:
        begins = search.number > 0 and search.strategy.generation == 0  # validated as the end of the stage before
        if search.over or (search.total % config.validate_every == 0 and not begins):
            validate(
                search.weights(averaged=True), search.total, f"generation {search.total:4d}, {search.elapsed():5.0f} s"
            )
            search.save(path)
        if not search.over:
            search.generation()
        elif (following := search.next()) is not None:
            search = following
        else:
            return search.weights(averaged=True)


def _refine(
    config: IndexTraining, weights: np.ndarray, path: Path, validate: Callable[[np.ndarray, int, str], None]
) -> np.ndarray:
    """The coordinate search of the places of the last stage, going on from the file at `path`; returns the weights."""
    places, scales = _searched(config.stages[-1], config.pausing)
    if path.exists():
        search, more = CoordinateSearch.opened(path)
        weights, before = more["weights"], float(more["seconds"])
    else:
        search, before = CoordinateSearch(np.zeros(len(places)), _WIDTH * np.ones(len(places)), seed=config.seed), 0.0
    started = time.monotonic()

    def moved(center: np.ndarray) -> np.ndarray:
        changed = weights.copy()
        changed[places] += scales * center
        return changed

    generations = sum(stage.generations for stage in config.stages)
    while search.sweeps < config.sweeps:
        cases = _sweep_cases(config, search.sweeps)

        def log_costs(centers: np.ndarray, cases: Sequence[Case] = cases) -> np.ndarray:
            candidates = [steered(moved(center)) for center in centers]
            return np.log(costs(candidates, cases, config.objective) + _FLOOR[config.objective])

        kept, gain = search.sweep(log_costs)
        seconds = before + time.monotonic() - started
        when = f"sweep {search.sweeps}, {seconds:5.0f} s, {kept} of {len(places)} changes, {gain:+.4f} on its cases"
        validate(moved(search.center), generations + search.sweeps, when)
        search.save(path, weights=weights, seconds=seconds)
    return moved(search.center)


class _Search:
    """Where a training stands: the stage, its strategy, the mean of its last centers, and where it began."""

    def __init__(self, config: IndexTraining, stage: int, first: np.ndarray) -> None:
        self.config, self.number, self.first = config, stage, first
        self.stage = config.stages[stage]
        self.places, self.scales = _searched(self.stage, config.pausing)
        self.mean = np.zeros(len(self.places))
        self.strategy = EvolutionStrategy(
            self.mean,
            self.stage.noise,
            self.stage.learning_rate,
            self.stage.pairs,
            self.stage.decay,
            seed=config.seed + stage,
        )
        self.before, self.started = 0.0, time.monotonic()

    @classmethod
    def opened(cls, config: IndexTraining, path: Path) -> _Search:
        if not path.exists():
            first = first_weights(config.objective, config.pausing)
            if config.start is not None:
                begun = output_layer(first)[ix.BEGUN].copy()
                first = read_weights(config.start, NUM_WEIGHTS).copy()
                output_layer(first)[ix.BEGUN] = begun  # whether it may pause is not up to the file
            return cls(config, 0, first)
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


def _sweep_cases(config: IndexTraining, sweep: int) -> list[Case]:
    rng = np.random.default_rng([config.seed, 3, sweep])
    edges = np.linspace(*config.loads, config.cases + 1)
    cases: list[Case] = [
        (site, site.at(rng.uniform(low, high), config.horizon), int(TRAINING_SEEDS + rng.integers(_SEED_BLOCK)))
        for site in TRAINING
        for low, high in pairwise(edges)
    ]
    return cases + _random_cases(rng, max(1, len(cases) // 2), TRAINING_SEEDS, config.loads)


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
    parser.add_argument("--pausing", action="store_true", help="let begun prompts wait for others")
    parser.add_argument("--start", type=Path, help="a policy to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = IndexTraining(args.objective, args.pausing, args.start, seed=args.seed)
    print(asdict(config))
    train(config, args.out, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
