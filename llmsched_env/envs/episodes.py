"""What an environment simulates: engine, workload and load, and the requests or tasks of each episode."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.slo import SLO
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.theory.capacity import capacity
from llmsched_env.validation import check_number
from llmsched_env.workloads import RequestTable, Workload, load_trace, preset
from llmsched_env.workloads.task_sources import TaskSource

Load = float | tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Episodes:
    """Draws the requests of episodes; the same generator state gives the same requests.

    Args:
        workload: what the requests are drawn from.
        engine: the machine.
        load: rate over the reference capacity of engine and workload; a pair: drawn uniformly for each episode; None:
            the workload's own rate.
        horizon: length of an episode (s); None runs each sample of the workload until every request has left.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    workload: Workload
    engine: EngineConfig
    load: Load = None
    horizon: float | None = None
    _capacity: float = 0.0

    def __post_init__(self) -> None:
        if self.horizon is not None:
            check_number("horizon", self.horizon, above=0, unit="s")
        if self.load is not None:
            low, high = _pair(self.load)
            check_number("load", low, above=0)
            check_number("load", high, at_least=low)
            object.__setattr__(self, "load", (float(low), float(high)))
            object.__setattr__(self, "_capacity", capacity(self.engine, self.workload))
            self.workload.scaled(rate=low * self._capacity)  # refuses a workload that can't be scaled, before any run

    @classmethod
    def of(
        cls,
        workload: Workload | str | Path,
        engine: EngineConfig | str,
        load: Load = None,
        horizon: float | None = None,
        slo: SLO | tuple[float, float] | None = None,
    ) -> Self:
        """Episodes of a workload, the name of a preset or the path of a trace, on an engine or a GPU profile.

        `slo`, or (ttft, tpot) in s, are the targets of all requests; None: those that the workload gives them.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        if slo is not None and not isinstance(slo, SLO):
            slo = SLO(*slo)
        loaded = _as_workload(workload)
        if slo is not None:
            loaded = loaded.with_slo(slo)
        return cls(loaded, engine if isinstance(engine, EngineConfig) else EngineConfig.for_gpu(engine), load, horizon)

    def draw(self, rng: np.random.Generator) -> RequestTable:
        """The requests of one episode."""
        workload = self.workload
        if self.load is not None:
            low, high = _pair(self.load)
            load = low if low == high else rng.uniform(low, high)
            workload = workload.scaled(rate=load * self._capacity)
        if self.horizon is None:
            return workload.sample(int(rng.integers(2**31)))
        return workload.episode(rng, self.horizon)


def _pair(load: float | tuple[float, float]) -> tuple[float, float]:
    """The least and the largest load."""
    if isinstance(load, tuple | list):
        low, high = load
        return low, high
    return load, load


def _as_workload(workload: Workload | str | Path) -> Workload:
    if isinstance(workload, Workload):
        return workload
    if Path(workload).suffix or Path(workload).exists():
        return load_trace(workload)
    return preset(str(workload))


class Draws(Protocol):
    """Draws the tasks of an episode from the environment's generator alone."""

    @property
    def name(self) -> str:
        """Of the workload."""

    def draw(self, rng: np.random.Generator) -> tuple[TaskTable, int]:
        """The tasks of one episode, and a seed for schedulers and routers."""


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
    """The same episodes with `load` relative to the capacity of all `engines`, not to that of `episodes.engine`."""
    if episodes.load is None:
        return episodes
    one = capacity(episodes.engine, episodes.workload)
    whole = sum(capacity(engine, episodes.workload) for engine in engines) / one
    low, high = _pair(episodes.load)
    return replace(episodes, load=(low * whole, high * whole))
