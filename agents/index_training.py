"""Train the network that steers the index policy: evolution strategies, then a coordinate search, on shared requests.

A candidate is measured by the logarithm of its cost in each case, on the very same requests as the others. So a case
counts by the share of its cost that is saved, whether many or few requests miss their targets in it, and the noise of
the workload cancels.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

import baselines
from agents.coordinate_search import CoordinateSearch
from agents.evolution import EvolutionStrategy
from agents.folders import interrupted, keep_config
from agents.index_cases import FLOOR, Case, costs, generation_cases, saved, sweep_cases, validation_cases
from agents.index_search_space import PLAIN_STAGES, STAGES, Stage, first_weights, searched
from agents.steered import output_layer, steered
from llmsched_env.policies.learned_index import PERCEPTRON
from llmsched_env.policies.weights import load_weights, save_weights
from llmsched_env.validation import check_choice, check_integer, check_number, check_range

REFERENCES = {"slo_attainment": "slos_serve", "mean_e2el": "slo_first"}
_WIDTH = 0.3  # first width of the coordinate search, in spreads of the numbers
_EVEN = 0.05  # added to the spread of a case over the candidates, by which its logarithms of costs are divided


@dataclass(frozen=True, slots=True)
class IndexTraining:
    """How a network is trained: stages of evolution strategies, then sweeps of a coordinate search.

    Attributes:
        objective: "slo_attainment" or "mean_e2el".
        pausing: whether begun prompts may wait for others, which takes more than four knobs of vLLM.
        start: file of a policy to go on from; None: from constants.
        plain: whether these are the plain ones of a simple rule, for a training from scratch.
        stages: one after the other, each from what the one before it found; None for those of `STAGES`, or of
            `PLAIN_STAGES` if it begins at plain constants.
        seed: of everything random.
        sites: cases of a generation on sites of the suite, each on another one, and
        random_sites: on random ones.
        loads: range of their loads.
        horizon: s of arrivals at sites of the suite.
        validate_every: generations.
        average: share of the last generations of a stage over which the weights are averaged.
        sweeps: of the coordinate search that follows, and
        cases: at each site of the suite in a sweep; as many random ones come on top.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    objective: str = "slo_attainment"
    pausing: bool = False
    start: Path | None = None
    plain: bool = False
    stages: tuple[Stage, ...] | None = None
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
        if self.stages is None:
            object.__setattr__(self, "stages", (PLAIN_STAGES if self.plain else STAGES)[self.objective])
        check_integer("number of stages", len(self.stages), at_least=1)
        for stage in self.stages:  # refuses what the search does not allow
            EvolutionStrategy(np.zeros(1), stage.noise, stage.learning_rate, stage.pairs, stage.decay)
        for name in ("seed", "sites", "random_sites", "sweeps"):
            check_integer(name, getattr(self, name), at_least=0)
        check_integer("sites + random_sites", self.sites + self.random_sites, at_least=1)
        for name in ("validate_every", "cases"):
            check_integer(name, getattr(self, name), at_least=1)
        check_range("loads", self.loads, above=0)
        check_number("horizon", self.horizon, above=0, unit="s")
        check_number("average", self.average, at_least=0, at_most=1)


def train(config: IndexTraining, folder: Path, say: Callable[[str], None] = print) -> np.ndarray:
    """Search stage by stage, going on from `folder` if a search is there; returns the best weights validated.

    Evolution strategies hand over the mean of the centers of their last generations, which wander around what is best.
    `folder` holds `config.json`, `best.npz` with those that saved most in validation, `last.npz` and `sweeps.npz` (to
    go on from) and TensorBoard's logs. Validation is on a fixed set of tuning seeds: all sites of the suite to train
    on, and random ones that training never draws.

    Raises:
        ValueError: if another training is in the folder.
    """
    keep_config(folder, _record(config))
    held, on_suite = validation_cases()
    target = costs([baselines.get(REFERENCES[config.objective])], held, config.objective)[0]
    best, refined = folder / "best.npz", folder / "sweeps.npz"
    evolving = None if refined.exists() else _Search.opened(config, folder / "last.npz")
    with SummaryWriter(str(folder / "tensorboard"), purge_step=evolving and evolving.total) as log:

        def validate(weights: np.ndarray, step: int, when: str) -> None:
            own = costs([steered(weights)], held, config.objective)[0]
            gains = saved(own, target, config.objective)
            log.add_scalar("validation/saved", gains.mean(), step)
            log.add_scalar("validation/worst_case", gains.min(), step)
            log.add_scalar(f"validation/{config.objective}_cost", own.mean(), step)
            suite = gains[:on_suite].mean()
            say(
                f"{when}: cost {own.mean():.5f}, reference {target.mean():.5f}, "
                f"saved {gains.mean():+.4f} (suite {suite:+.4f})"
            )
            if not best.exists() or gains.mean() > np.load(best)["saved"]:
                save_weights(best, PERCEPTRON, weights, saved=gains.mean())

        weights = None if evolving is None else _evolve(evolving, folder / "last.npz", validate)
        _refine(config, weights, refined, validate)
    return load_weights(best, PERCEPTRON)


def _first(config: IndexTraining) -> np.ndarray:
    """The weights that a training begins with."""
    first = first_weights(config.objective, config.pausing, config.plain)
    if config.start is not None:
        rows = [PERCEPTRON.output_place(name) for name in ("begun", "blocking")]
        fixed = output_layer(first)[rows].copy()
        first = load_weights(config.start, PERCEPTRON)
        output_layer(first)[rows] = fixed  # whether it may pause is not up to the file
    return first


def _record(config: IndexTraining) -> dict[str, Any]:
    """The configuration as it is kept, with a digest of the first weights: constants and files of policies change."""
    start = None if config.start is None else Path(config.start).name
    return asdict(config) | {"start": start, "first_weights": hashlib.sha256(_first(config).tobytes()).hexdigest()}


def _evolve(search: _Search, path: Path, validate: Callable[[np.ndarray, int, str], None]) -> np.ndarray:
    """What is left of the stages of evolution strategies, kept in the file at `path`; returns the weights."""
    config = search.config
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
    config: IndexTraining, weights: np.ndarray | None, path: Path, validate: Callable[[np.ndarray, int, str], None]
) -> None:
    """The coordinate search of what the last stage searched: from `weights`, or else from the file at `path`."""
    places = searched(config.stages[-1], config.pausing)
    if weights is None:
        search, more = CoordinateSearch.opened(path)
        weights, before = more["weights"], float(more["seconds"])
    else:
        search, before = CoordinateSearch(np.zeros(len(places)), _WIDTH * np.ones(len(places)), seed=config.seed), 0.0
    started = time.monotonic()

    def moved(center: np.ndarray) -> np.ndarray:
        changed = weights.copy()
        changed[places] += center
        return changed

    generations = sum(stage.generations for stage in config.stages)
    while search.sweeps < config.sweeps:
        cases = sweep_cases(config.seed, search.sweeps, config.cases, config.loads, config.horizon)

        def log_costs(centers: np.ndarray, cases: Sequence[Case] = cases) -> np.ndarray:
            candidates = [steered(moved(center)) for center in centers]
            return np.log(costs(candidates, cases, config.objective) + FLOOR[config.objective])

        kept, gain = search.sweep(log_costs)
        seconds = before + time.monotonic() - started
        when = f"sweep {search.sweeps}, {seconds:5.0f} s, {kept} of {len(places)} changes, {gain:+.4f} on its cases"
        validate(moved(search.center), generations + search.sweeps, when)
        search.save(path, weights=weights, seconds=seconds)


class _Search:
    """Where a training stands: the stage, its strategy, the mean of its last centers, and where it began."""

    def __init__(self, config: IndexTraining, stage: int, first: np.ndarray) -> None:
        self.config, self.number, self.first = config, stage, first
        self.stage = config.stages[stage]
        self.places = searched(self.stage, config.pausing)
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
            return cls(config, 0, _first(config))
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
        weights[self.places] += step
        return weights

    def _cases(self) -> list[Case]:
        config = self.config
        return generation_cases(
            config.seed, self.total, config.sites, config.random_sites, config.loads, config.horizon
        )

    def generation(self) -> None:
        """Ask, evaluate, tell."""
        config, strategy, stage = self.config, self.strategy, self.stage
        strategy.learning_rate = stage.learning_rate * (1 - 0.9 * strategy.generation / stage.generations)
        candidates = [steered(self.weights(step=step)) for step in strategy.ask()]
        logs = np.log(costs(candidates, self._cases(), config.objective) + FLOOR[config.objective])
        # Each case counts alike, however much or little the candidates differ in it.
        strategy.tell(-((logs - logs.mean(axis=0)) / (logs.std(axis=0) + _EVEN)).mean(axis=1))
        if strategy.generation > self._begin:
            self.mean = self.mean + (strategy.center - self.mean) / (strategy.generation - self._begin)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m agents.index_training --objective slo_attainment --out FOLDER`."""
    import argparse

    parser = argparse.ArgumentParser(description="Train a network that steers the index policy.")
    parser.add_argument("--objective", choices=tuple(REFERENCES), default="slo_attainment")
    parser.add_argument("--pausing", action="store_true", help="let begun prompts wait for others")
    parser.add_argument("--start", type=Path, help="a policy to go on from")
    parser.add_argument("--plain", action="store_true", help="from the constants of a plain rule, nothing learned yet")
    parser.add_argument(
        "--generations",
        type=int,
        help="of evolution strategies, before the sweeps, in the first stage (default: 80 for mean_e2el, else 0; "
        "with --plain 60)",
    )
    parser.add_argument("--sweeps", type=int, default=1, help="of the coordinate search (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    try:
        config = IndexTraining(args.objective, args.pausing, args.start, args.plain, seed=args.seed, sweeps=args.sweeps)
        if args.generations is not None:
            first, *others = config.stages
            config = replace(config, stages=(replace(first, generations=args.generations), *others))
        print(asdict(config))
        train(config, args.out, lambda line: print(line, flush=True))
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(interrupted(args.out))


if __name__ == "__main__":
    main()
