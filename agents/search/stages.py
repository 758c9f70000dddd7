"""The stages of a search: what is searched, how widely, and by which measure candidates are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from agents.search.coordinate_search import CoordinateSearch
from agents.search.evolution import EvolutionStrategy


class EvolutionSettings(Protocol):
    """How widely evolution strategies search.

    Attributes:
        noise: standard deviation of the candidates at the start.
        learning_rate: at the start.
        pairs: mirrored pairs of candidates a generation.
        decay: by which what was found shrinks each generation; 1 for not at all.
    """

    @property
    def noise(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def pairs(self) -> int: ...
    @property
    def decay(self) -> float: ...


def check_search(settings: EvolutionSettings) -> None:
    """Refuse noise, rates, pairs and decay that no search can have.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """
    EvolutionStrategy(np.zeros(1), settings.noise, settings.learning_rate, settings.pairs, settings.decay)


class StageState(Protocol):
    """A stage under way.

    Attributes:
        done: updates so far.
        note: what the last update came to, for a line of progress.
    """

    @property
    def done(self) -> int: ...
    @property
    def note(self) -> str: ...

    def update(self, generation: int) -> dict[str, float]:
        """Move on by a generation or a sweep; returns numbers for the log. `generation` counts over all stages."""
        ...

    def weights(self) -> np.ndarray:
        """What the stage has found so far, to be validated."""
        ...

    def state(self) -> dict[str, Any]:
        """Arrays and numbers from which the stage's `resume` goes on exactly."""
        ...


class Stage(Protocol):
    """A stage of a search.

    Attributes:
        updates: generations or sweeps, after which it ends.
        validate_every: updates, over all stages, between validations; None for that of the search.
    """

    @property
    def updates(self) -> int: ...
    @property
    def validate_every(self) -> int | None: ...

    def start(self, weights: np.ndarray) -> StageState:
        """Begin with weights."""
        ...

    def resume(self, state: dict[str, Any]) -> StageState:
        """Go on from what `StageState.state` returned."""
        ...


@dataclass(frozen=True, slots=True)
class EvolutionStage:
    """Evolution strategies on some of the weights.

    The learning rate falls linearly to a tenth. Without `places` the whole network is searched: noise shrinks to a
    fifth, and decay pulls towards 0. With `places` noise stays, and decay pulls towards the weights of the start.

    Attributes:
        updates: generations.
        noise: standard deviation of the candidates at the start.
        learning_rate: at the start.
        pairs: mirrored pairs of candidates a generation.
        decay: by which what was found shrinks each generation; 1 for not at all.
        seed: of the candidates.
        fitness: of weights f8[2 * pairs, n] and the generation, f8[2 * pairs]: the larger the better.
        places: of the weights that are searched; None for all.
        average: share of the last generations over whose centers the result is averaged.
        validate_every: None, for that of the search.
    """

    updates: int
    noise: float
    learning_rate: float
    pairs: int
    decay: float
    seed: int
    fitness: Callable[[np.ndarray, int], np.ndarray]
    places: np.ndarray | None = None
    average: float = 0.0
    validate_every: int | None = None

    def rates(self, generation: int) -> tuple[float, float]:
        """(noise, learning rate) of a generation."""
        if self.places is not None:
            return self.noise, self.learning_rate * (1 - 0.9 * generation / self.updates)
        spent = generation / self.updates
        return self.noise * (1 - 0.8 * spent), self.learning_rate * (1 - 0.9 * spent)

    def start(self, weights: np.ndarray) -> StageState:
        """Begin with weights f8[n]."""
        if self.places is None:
            base, places, center = np.zeros_like(weights), np.arange(len(weights)), weights
        else:
            base, places, center = weights.copy(), self.places, np.zeros(len(self.places))
        strategy = EvolutionStrategy(center, self.noise, self.learning_rate, self.pairs, self.decay, seed=self.seed)
        return _Evolution(self, base, places, strategy, np.zeros_like(strategy.center))

    def resume(self, state: dict[str, Any]) -> StageState:
        """Go on from what `StageState.state` returned."""
        base, mean = state.pop("base"), state.pop("mean")
        places = np.arange(len(base)) if self.places is None else self.places
        return _Evolution(self, base, places, EvolutionStrategy.restored(state), mean)


@dataclass(slots=True, eq=False)
class _Evolution:
    stage: EvolutionStage
    base: np.ndarray
    places: np.ndarray
    strategy: EvolutionStrategy
    mean: np.ndarray  # of the centers of the last generations
    note: str = field(default="", init=False)

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
        return _moved(self.base, self.places, center[None])[0]

    def state(self) -> dict[str, Any]:
        return self.strategy.state() | {"base": self.base, "mean": self.mean}


@dataclass(frozen=True, slots=True)
class CoordinateStage:
    """Coordinate search on some of the weights, validated after each sweep.

    Attributes:
        updates: sweeps.
        width: by how much each weight is moved at first.
        seed: of the order in which weights are tried.
        costs: of a sweep, a function of weights f8[k, n] that returns f8[k, cases]: small is good.
        places: of the weights that are searched.
        validate_every: 1.
    """

    updates: int
    width: float
    seed: int
    costs: Callable[[int], Callable[[np.ndarray], np.ndarray]]
    places: np.ndarray
    validate_every: int | None = 1

    def start(self, weights: np.ndarray) -> StageState:
        """Begin with weights f8[n]."""
        count = len(self.places)
        search = CoordinateSearch(np.zeros(count), self.width * np.ones(count), seed=self.seed)
        return _Coordinates(self, weights.copy(), search)

    def resume(self, state: dict[str, Any]) -> StageState:
        """Go on from what `StageState.state` returned."""
        base = state.pop("base")
        return _Coordinates(self, base, CoordinateSearch.restored(state))


@dataclass(slots=True, eq=False)
class _Coordinates:
    stage: CoordinateStage
    base: np.ndarray
    search: CoordinateSearch
    note: str = field(default="", init=False)

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
        return _moved(self.base, self.stage.places, self.search.center[None])[0]

    def state(self) -> dict[str, Any]:
        return self.search.state() | {"base": self.base}


def _moved(base: np.ndarray, places: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """f8[k, n]: `base` with each row of steps f8[k, places] added at `places`."""
    weights = np.repeat(base[None], len(steps), axis=0)
    weights[:, places] += steps
    return weights
