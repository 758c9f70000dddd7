"""The loop of a training by evolution strategies: candidates on shared cases, validation, and going on in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from agents.evolution import EvolutionStrategy
from llmsched_env.policies.perceptron import Perceptron
from llmsched_env.policies.weights import save_weights


class SearchSettings(Protocol):
    """What a search has to be told.

    Attributes:
        generations: after which it ends.
        seed: of the candidates.
        noise: of the search distribution at the start; shrinks linearly to a fifth.
        learning_rate: at the start; shrinks linearly to a tenth.
        pairs: of candidates.
        decay: of the weights.
        validate_every: generations.
    """

    @property
    def generations(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def noise(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def pairs(self) -> int: ...
    @property
    def decay(self) -> float: ...
    @property
    def validate_every(self) -> int: ...


class Validation(NamedTuple):
    """What weights are worth: `value`, the larger the better; further numbers for the log, and a line to print."""

    value: float
    numbers: Mapping[str, float]
    text: str


def check_search(config: SearchSettings) -> None:
    """Refuse noise, rates, pairs and decay that no search can have.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """
    EvolutionStrategy(np.zeros(1), config.noise, config.learning_rate, config.pairs, config.decay)


def search(
    config: SearchSettings,
    folder: Path,
    network: Perceptron,
    first: np.ndarray,
    saved: Callable[[np.ndarray, int], np.ndarray],
    validate: Callable[[np.ndarray], Validation],
    say: Callable[[str], None] = print,
) -> np.ndarray:
    """Search for so many generations, going on from `folder` if a search is there; returns the best weights validated.

    The same config gives the same weights on any machine, whether or not it was interrupted.

    Args:
        config: how long, and how widely.
        folder: gets `best.npz`, `last.npz` (to go on from) and TensorBoard's logs.
        network: whose weights are searched.
        first: f8[n], weights to begin with.
        saved: of candidates f8[2 * pairs, n] of a generation, f8[2 * pairs]: the larger the better.
        validate: of weights f8[n], on the same cases every time.
        say: prints progress.
    """
    strategy, best = _opened(config, folder, first)
    with SummaryWriter(str(folder / "tensorboard"), purge_step=strategy.generation) as log:
        while True:
            generation, spent = strategy.generation, strategy.generation / config.generations
            strategy.learning_rate = config.learning_rate * (1 - 0.9 * spent)
            strategy.noise = config.noise * (1 - 0.8 * spent)
            if generation % config.validate_every == 0 or spent >= 1:
                found = validate(strategy.center)
                for name, number in ({"saved": found.value} | dict(found.numbers)).items():
                    log.add_scalar(f"validation/{name}", number, generation)
                say(f"generation {generation:4d}: {found.text}")
                if found.value > best[0]:
                    best = (found.value, strategy.center.copy())
                    save_weights(folder / "best.npz", network, best[1], value=best[0], generation=generation)
                strategy.save(folder / "last.npz", best_value=best[0], best=best[1])
            if spent >= 1:
                return best[1]
            fitness = saved(strategy.ask(), generation)
            log.add_scalar("training/saved", fitness.mean(), generation)
            strategy.tell(fitness)


def _opened(
    config: SearchSettings, folder: Path, first: np.ndarray
) -> tuple[EvolutionStrategy, tuple[float, np.ndarray]]:
    """The search and the best so far."""
    if (folder / "last.npz").exists():
        strategy, kept = EvolutionStrategy.opened(folder / "last.npz")
        return strategy, (float(kept["best_value"]), kept["best"])
    strategy = EvolutionStrategy(
        first, config.noise, config.learning_rate, config.pairs, config.decay, seed=config.seed
    )
    return strategy, (-np.inf, first)
