"""Train the network that steers the index policy: evolution strategies on pairs of runs with shared requests.

A candidate is measured by how much better it does than a reference scheduler on the very same requests: the logarithm
of the ratio of both costs. So a case counts by the share of its cost that is saved, whether many or few requests miss
their targets in it, and the noise of the workload cancels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

import baselines
from agents.evolution import EvolutionStrategy
from llmsched_env.evaluation.cases import map_runs
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.evaluation.seeds import TRAINING_SEEDS, TUNING_SEEDS
from llmsched_env.evaluation.suite import TRAINING, Site
from llmsched_env.policies.learned import HIDDEN, NUM_WEIGHTS, learned_index
from llmsched_env.policies.queue_state import NUM_FEATURES
from llmsched_env.simulator.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice, check_number
from llmsched_env.workloads import Workload

Case = tuple[Site, Workload, int]
"""(where, the workload at its load, the seed)."""

REFERENCES = {"slo_attainment": "slo_first", "mean_e2el": "slo_first"}
_FLOOR = {"slo_attainment": 0.003, "mean_e2el": 0.0}  # added to both costs: a single missed request is no landslide
_VALIDATION_LOADS = (0.8, 0.95, 1.1)
_SEED_BLOCK = 9_000  # training seeds are drawn from the first so many


@dataclass(frozen=True, slots=True)
class IndexTraining:
    """How a network is trained.

    Attributes:
        objective: "slo_attainment" or "mean_e2el".
        minutes: wall-clock time.
        seed: of everything random.
        sites: cases of a generation, each from another site.
        loads: range of their loads.
        horizon: s of arrivals of each.
        noise: of the search distribution.
        learning_rate: at the start; decays linearly to a tenth.
        pairs: of candidates.
        decay: of the weights.
        validate_every: generations.
    """

    objective: str = "slo_attainment"
    minutes: float = 30.0
    seed: int = 0
    sites: int = 8
    loads: tuple[float, float] = (0.75, 1.15)
    horizon: float = 100.0
    noise: float = 0.05
    learning_rate: float = 0.02
    pairs: int = 12
    decay: float = 0.9995
    validate_every: int = 20

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, tuple(REFERENCES))
        check_number("minutes", self.minutes, above=0)


def steered(weights: np.ndarray, name: str = "learned_index") -> Scheduler:
    """The index policy, its numbers set by the network with these weights."""
    return replace(learned_index, name=name, weights=tuple(np.asarray(weights, float).tolist()))


def first_weights(seed: int) -> np.ndarray:
    """Random hidden units and an output layer of zeros: at first the policy is the index policy at its start."""
    weights = np.zeros(NUM_WEIGHTS)
    hidden = np.random.default_rng([seed, 1]).normal(0, NUM_FEATURES**-0.5, (HIDDEN, NUM_FEATURES + 1))
    hidden[:, -1] = 0.0
    weights[: hidden.size] = hidden.ravel()
    return weights


def load_steered(path: str | Path) -> Scheduler:
    """The scheduler that a training has found: its `best.npz`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights of this network.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no trained policy at {path}")
    try:
        with np.load(path) as file:
            weights = file["weights"]
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no trained policy: {error}") from None
    if weights.shape != (NUM_WEIGHTS,):
        raise ValueError(f"{path} is no trained policy: weights must be {NUM_WEIGHTS} numbers, got {weights.shape}")
    return steered(weights, path.parent.name or "steered")


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
    """Search until the time is up, going on from `folder` if a search is there; returns the best weights.

    The best are those with the best validation: a fixed set of tuning seeds on all training sites. `folder` holds
    `best.npz`, `last.npz` (to go on from) and TensorBoard's logs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reference = baselines.get(REFERENCES[config.objective])
    held = [
        (site, site.at(load), TUNING_SEEDS + k) for site in TRAINING for load in _VALIDATION_LOADS for k in range(2)
    ]
    target = costs([reference], held, config.objective)[0]
    strategy, best, before = _opened(config, folder)
    started = time.monotonic()
    with SummaryWriter(str(folder / "tensorboard"), purge_step=strategy.generation) as log:
        while (seconds := before + time.monotonic() - started) < 60 * config.minutes:
            strategy.learning_rate = config.learning_rate * (1 - 0.9 * seconds / (60 * config.minutes))
            if strategy.generation % config.validate_every == 0:
                own = costs([steered(strategy.center)], held, config.objective)[0]
                value = float(saved(own, target, config.objective).mean())
                log.add_scalar("validation/saved", value, strategy.generation)
                log.add_scalar(f"validation/{config.objective}_cost", own.mean(), strategy.generation)
                log.add_scalar("validation/reference_cost", target.mean(), strategy.generation)
                say(
                    f"generation {strategy.generation:4d}, {seconds:5.0f} s: cost {own.mean():.5f}, "
                    f"reference {target.mean():.5f}, saved {value:+.4f}"
                )
                if value > best[0]:
                    best = (value, strategy.center.copy())
                    np.savez(folder / "best.npz", weights=best[1], value=value, generation=strategy.generation)
                _keep(strategy, best, seconds, folder)
            cases = _draw(config, strategy.generation)
            found = costs([*map(steered, strategy.ask()), reference], cases, config.objective)
            fitness = saved(found[:-1], found[-1], config.objective).mean(axis=1)
            log.add_scalar("training/saved", fitness.mean(), strategy.generation)
            strategy.tell(fitness)
    return best[1]


def _draw(config: IndexTraining, generation: int) -> list[Case]:
    rng = np.random.default_rng([config.seed, 2, generation])
    picked = rng.choice(len(TRAINING), min(config.sites, len(TRAINING)), replace=False)
    return [
        (
            TRAINING[k],
            TRAINING[k].at(rng.uniform(*config.loads), config.horizon),
            int(TRAINING_SEEDS + rng.integers(_SEED_BLOCK)),
        )
        for k in picked
    ]


def _opened(config: IndexTraining, folder: Path) -> tuple[EvolutionStrategy, tuple[float, np.ndarray], float]:
    """The search, the best so far, and the seconds it took."""
    path = folder / "last.npz"
    if path.exists():
        strategy, kept = EvolutionStrategy.opened(path)
        return strategy, (float(kept["best_value"]), kept["best"]), float(kept["seconds"])
    weights = first_weights(config.seed)
    strategy = EvolutionStrategy(
        weights, config.noise, config.learning_rate, config.pairs, config.decay, seed=config.seed
    )
    return strategy, (-np.inf, weights), 0.0


def _keep(strategy: EvolutionStrategy, best: tuple[float, np.ndarray], seconds: float, folder: Path) -> None:
    strategy.save(folder / "last.npz", best_value=best[0], best=best[1], seconds=seconds)


def main() -> None:
    """`python -m agents.index_training --objective slo_attainment --minutes 30 --out FOLDER`."""
    import argparse

    parser = argparse.ArgumentParser(description="Train a network that steers the index policy.")
    parser.add_argument("--objective", choices=tuple(REFERENCES), default="slo_attainment")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = IndexTraining(args.objective, args.minutes, args.seed)
    print(asdict(config))
    train(config, args.out, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
