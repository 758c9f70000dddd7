"""The tasks of each episode of a network, drawn from the environment's generator alone."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from llmsched_env.envs.episodes import Episodes
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.task_table import TaskTable
from llmsched_env.theory import capacity
from llmsched_env.workloads.task_sources import TaskSource


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
