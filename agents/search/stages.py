"""The stages of a search: what is searched, how widely, and by which measure candidates are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.search.coordinate_search import CoordinateSearch, Costs
from agents.search.evolution import EvolutionStrategy
from agents.settings import EvolutionSettings


class StageState(ABC):
    """A stage under way."""

    @property
    @abstractmethod
    def done(self) -> int:
        """Updates so far."""

    @property
    @abstractmethod
    def due(self) -> bool:
        """Whether to validate now."""

    @abstractmethod
    def update(self, generation: int) -> dict[str, float]:
        """Move on by a generation or a parameter; returns numbers for the log. `generation` counts over all stages."""

    @abstractmethod
    def weights(self) -> np.ndarray:
        """f8[n]: what the stage has found so far, to be validated."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Arrays and numbers from which `Stage.resume` goes on exactly."""


class Stage(ABC):
    """A stage of a search."""

    @property
    @abstractmethod
    def updates(self) -> int:
        """After which it ends."""

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
        validate_every: generations between validations.
        average: share of the last generations over whose centers the result is averaged.
    """

    settings: EvolutionSettings
    seed: int
    fitness: Callable[[np.ndarray, int], np.ndarray]
    validate_every: int
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
    def due(self) -> bool:
        return self.done % self.stage.validate_every == 0

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
    """Coordinate search on some of the weights, validated after each sweep. An update tries one weight.

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
    costs: Callable[[int], Costs]
    places: np.ndarray

    @property
    def updates(self) -> int:
        return self.sweeps * len(self.places)

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
    _costs: tuple[int, Costs] | None = None  # of the present sweep

    @property
    def done(self) -> int:
        return self.search.tried

    @property
    def due(self) -> bool:
        return self.search.at_start

    def update(self, generation: int) -> dict[str, float]:
        sweep = self.search.sweep
        if self._costs is None or self._costs[0] != sweep:
            self._costs = sweep, self.stage.costs(sweep)
        costs = self._costs[1]
        gain = self.search.step(lambda centers: costs(_moved(self.base, self.stage.places, centers)))
        return {"changes_kept": float(self.search.kept), "gain": gain}

    def weights(self) -> np.ndarray:
        return _moved(self.base, self.stage.places, self.search.center[None]).ravel()

    def state(self) -> dict[str, Any]:
        return self.search.state() | {"base": self.base}


def _moved(base: np.ndarray, places: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """f8[k, n]: `base` with each row of steps f8[k, places] added at `places`."""
    weights = np.repeat(base[None], len(steps), axis=0)
    weights[:, places] += steps
    return weights
