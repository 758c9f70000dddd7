"""The stages of a search: what is searched, how widely, and by which measure candidates are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agents.search.coordinate_search import CoordinateSearch
from agents.search.evolution import EvolutionStrategy
from llmsched_env.validation import check_integer


@dataclass(frozen=True, slots=True)
class EvolutionSettings:
    """How long and how widely evolution strategies search.

    Attributes:
        generations: after which they end.
        noise: standard deviation of the candidates at the start.
        learning_rate: at the start; decays linearly to a tenth.
        pairs: mirrored pairs of candidates a generation.
        decay: by which what was found shrinks each generation, so that weights without effect do not wander off.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    generations: int
    noise: float = 0.1
    learning_rate: float = 0.05
    pairs: int = 12
    decay: float = 0.9995

    def __post_init__(self) -> None:
        check_integer("generations", self.generations, at_least=0)
        EvolutionStrategy(np.zeros(1), self.noise, self.learning_rate, self.pairs, self.decay)  # checks the others


class StageState(ABC):
    """A stage under way.

    Attributes:
        note: result of the last update, for a line of progress.
    """

    note = ""

    @property
    @abstractmethod
    def done(self) -> int:
        """Updates so far."""

    @abstractmethod
    def update(self, generation: int) -> dict[str, float]:
        """Move on by a generation or a sweep; returns numbers for the log. `generation` counts over all stages."""

    @abstractmethod
    def weights(self) -> np.ndarray:
        """f8[n]: what the stage has found so far, to be validated."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Arrays and numbers from which `Stage.resume` goes on exactly."""


class Stage(ABC):
    """A stage of a search.

    Attributes:
        validate_every: updates, over all stages, between validations; None for that of the search.
    """

    validate_every: int | None = None

    @property
    @abstractmethod
    def updates(self) -> int:
        """Generations or sweeps, after which it ends."""

    @abstractmethod
    def start(self, weights: np.ndarray) -> StageState:
        """Begin with weights f8[n]."""

    @abstractmethod
    def resume(self, state: dict[str, Any]) -> StageState:
        """Go on from what `StageState.state` returned."""


@dataclass(frozen=True)
class EvolutionStage(Stage):
    """Evolution strategies, on all weights or on some.

    Without `places` all weights are searched: noise shrinks linearly to a fifth, and decay pulls towards 0. With
    `places` noise stays, and decay pulls towards the weights of the start.

    Attributes:
        settings: how long and how widely.
        seed: of the candidates.
        fitness: of weights f8[2 * pairs, n] and the generation, f8[2 * pairs]: the larger the better.
        places: of the weights that are searched; None for all.
        average: share of the last generations over whose centers the result is averaged.
    """

    settings: EvolutionSettings
    seed: int
    fitness: Callable[[np.ndarray, int], np.ndarray]
    places: np.ndarray | None = None
    average: float = 0.0

    @property
    def updates(self) -> int:
        return self.settings.generations

    def rates(self, generation: int) -> tuple[float, float]:
        """(noise, learning rate) of a generation."""
        settings = self.settings
        if self.places is not None:
            return settings.noise, settings.learning_rate * (1 - 0.9 * generation / settings.generations)
        spent = generation / settings.generations
        return settings.noise * (1 - 0.8 * spent), settings.learning_rate * (1 - 0.9 * spent)

    def start(self, weights: np.ndarray) -> StageState:
        if self.places is None:
            base, places, center = np.zeros_like(weights), np.arange(len(weights)), weights
        else:
            base, places, center = weights.copy(), self.places, np.zeros(len(self.places))
        s = self.settings
        strategy = EvolutionStrategy(center, s.noise, s.learning_rate, s.pairs, s.decay, self.seed)
        return _Evolution(self, base, places, strategy, np.zeros_like(strategy.center))

    def resume(self, state: dict[str, Any]) -> StageState:
        base, mean = state.pop("base"), state.pop("mean")
        places = np.arange(len(base)) if self.places is None else self.places
        return _Evolution(self, base, places, EvolutionStrategy.restored(state), mean)


@dataclass(eq=False)
class _Evolution(StageState):
    stage: EvolutionStage
    base: np.ndarray
    places: np.ndarray
    strategy: EvolutionStrategy
    mean: np.ndarray  # of the centers of the last generations

    @property
    def done(self) -> int:
        return self.strategy.generation

    @property
    def _averages_from(self) -> int:
        return round((1 - self.stage.average) * self.stage.updates)

    def update(self, generation: int) -> dict[str, float]:
        strategy = self.strategy
        strategy.noise, strategy.learning_rate = self.stage.rates(strategy.generation)
        fitness = self.stage.fitness(_moved(self.base, self.places, strategy.ask()), generation)
        strategy.tell(fitness)
        if (number := strategy.generation - self._averages_from) > 0:
            self.mean = self.mean + (strategy.center - self.mean) / number
        return {"fitness": float(np.mean(fitness))}

    def weights(self) -> np.ndarray:
        center = self.mean if self.done > self._averages_from else self.strategy.center
        return _moved(self.base, self.places, center[None]).ravel()

    def state(self) -> dict[str, Any]:
        return self.strategy.state() | {"base": self.base, "mean": self.mean}


@dataclass(frozen=True)
class CoordinateStage(Stage):
    """Coordinate search on some of the weights, validated after each sweep.

    Attributes:
        sweeps: after which it ends.
        width: by how much each weight is moved at first.
        seed: of the order in which weights are tried.
        costs: of a sweep, a function of weights f8[k, n] that returns f8[k, cases]: small is good.
        places: of the weights that are searched.
    """

    sweeps: int
    width: float
    seed: int
    costs: Callable[[int], Callable[[np.ndarray], np.ndarray]]
    places: np.ndarray
    validate_every: int | None = field(default=1, init=False)

    @property
    def updates(self) -> int:
        return self.sweeps

    def start(self, weights: np.ndarray) -> StageState:
        count = len(self.places)
        search = CoordinateSearch(np.zeros(count), self.width * np.ones(count), seed=self.seed)
        return _Coordinates(self, weights.copy(), search)

    def resume(self, state: dict[str, Any]) -> StageState:
        return _Coordinates(self, state.pop("base"), CoordinateSearch.restored(state))


@dataclass(eq=False)
class _Coordinates(StageState):
    stage: CoordinateStage
    base: np.ndarray
    search: CoordinateSearch

    @property
    def done(self) -> int:
        return self.search.sweeps

    def update(self, generation: int) -> dict[str, float]:
        places, sweep = self.stage.places, self.search.sweeps
        costs = self.stage.costs(sweep)
        kept, gain = self.search.sweep(lambda centers: costs(_moved(self.base, places, centers)))
        self.note = f", sweep {sweep + 1} kept {kept} of {len(places)} changes, {gain:+.4f} on its cases"
        return {"changes_kept": float(kept), "gain": gain}

    def weights(self) -> np.ndarray:
        return _moved(self.base, self.stage.places, self.search.center[None]).ravel()

    def state(self) -> dict[str, Any]:
        return self.search.state() | {"base": self.base}


def _moved(base: np.ndarray, places: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """f8[k, n]: `base` with each row of steps f8[k, places] added at `places`."""
    weights = np.repeat(base[None], len(steps), axis=0)
    weights[:, places] += steps
    return weights
