"""The tasks of each episode of a network, drawn from the environment's generator alone."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from llmsched_env.envs.episodes import Episodes
from llmsched_env.simulator.batch_time import Staircase
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.theory import capacity
from llmsched_env.validation import check_number
from llmsched_env.workloads import RequestTable
from llmsched_env.workloads.tasks import TaskSource, TaskTable

RYBKO_STOLYAR_ENGINES = 2 * (EngineConfig(Staircase(c=1.0, a=0.0, b0=1), token_budget=768, first_token="separate"),)
PER_VISIT = ((32, 32), (512, 32))  # mean prompt and output tokens of the two calls of a task


class Draws(Protocol):
    """What draws the tasks of an episode, and a seed for schedulers and routers; `name` is that of the workload."""

    name: str

    def draw(self, rng: np.random.Generator) -> tuple[TaskTable, int]: ...


@dataclass(frozen=True, slots=True)
class TaskEpisodes:
    """Episodes that are samples of a source of tasks."""

    source: TaskSource

    @property
    def name(self) -> str:
        return self.source.name

    def draw(self, rng: np.random.Generator) -> tuple[TaskTable, int]:
        seed = int(rng.integers(2**31))
        return self.source.sample(seed), seed


@dataclass(frozen=True, slots=True)
class RequestEpisodes:
    """Episodes of single calls; each request is a task."""

    episodes: Episodes

    @property
    def name(self) -> str:
        return self.episodes.workload.name

    def draw(self, rng: np.random.Generator) -> tuple[TaskTable, int]:
        return TaskTable.from_columns(self.episodes.draw(rng)), int(rng.integers(2**31))


def spread(episodes: Episodes, engines: tuple[EngineConfig, ...]) -> Episodes:
    """The same with the load over the capacity of all `engines` instead of that of the one in `episodes`."""
    if episodes.load is None:
        return episodes
    one = capacity(episodes.engine, episodes.workload)
    whole = sum(capacity(engine, episodes.workload) for engine in engines) / one
    low, high = episodes.load
    return replace(episodes, load=(low * whole, high * whole))


@dataclass(frozen=True, slots=True)
class RybkoStolyar:
    """The two-engine network of section 5.4 of arXiv 2504.07347.

    Tasks of type A make a call of Poisson(32) + Poisson(32) tokens to engine 0, then one of Poisson(512) + Poisson(32)
    to engine 1; those of type B the other way round. Classes 0 and 1 are the calls of type A, 2 and 3 those of type B.

    Args:
        load: of each engine.
        horizon: arrivals end there (s).
    """

    load: float = 0.9
    horizon: float = 1000.0
    name: str = "rybko-stolyar"

    def __post_init__(self) -> None:
        check_number("load", self.load, above=0)
        check_number("horizon", self.horizon, above=0, unit="s")

    def sample(self, seed: int) -> TaskTable:
        """The tasks of a seed."""
        rng = np.random.default_rng(seed)
        rate = self.load * RYBKO_STOLYAR_ENGINES[0].token_budget / sum(map(sum, PER_VISIT))
        n = int(rng.poisson(2 * rate * self.horizon))
        arrival = np.sort(rng.uniform(0.0, self.horizon, n))
        second_type = rng.integers(0, 2, n)
        visit = np.tile([0, 1], n)
        tokens = np.maximum(1, rng.poisson(np.tile(np.array(PER_VISIT), (n, 1))))
        first = np.arange(0, 2 * n, 2)
        calls = RequestTable.from_columns(
            np.repeat(arrival, 2),
            tokens[:, 0],
            tokens[:, 1],
            klass=2 * np.repeat(second_type, 2) + visit,
            horizon=self.horizon,
        )
        return TaskTable.from_columns(
            calls,
            task=np.repeat(np.arange(n), 2),
            edges=np.stack([first, first + 1], axis=1),
            engine=np.repeat(second_type, 2) ^ visit,
        )
