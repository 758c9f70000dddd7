"""The cells of the benchmark, and the runs of schedulers on them, each simulated once and kept in a file."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from llmsched_env.evaluation.cases import Load, load_text, map_runs
from llmsched_env.evaluation.run_cache import (
    describe,
    digest_of,
    distinct_seeds,
    file_name,
    scheduler_digest,
    source_of,
)
from llmsched_env.evaluation.suite import HELD_OUT, TRAINING, Site
from llmsched_env.evaluation.tuning import longest_run
from llmsched_env.files import read_object_if_exists, write_json
from llmsched_env.machine.config import EngineConfig
from llmsched_env.objectives import OBJECTIVES, Objective
from llmsched_env.results.records import NetworkResult, Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.theory import mean_latency_bound, slo_attainment_bound
from llmsched_env.workloads import Workload

BENCHMARK_OBJECTIVES = ("slo_attainment", "mean_e2el", "p99_ttft")
"""Objectives of the benchmark; p99_ttft is reported, and nothing is claimed of it."""

MEASURES = (*BENCHMARK_OBJECTIVES, "tpot_share")
"""The numbers kept of a run: the metrics of these objectives, and the share of requests within their TPOT target."""

BOUNDS = {"slo_attainment": slo_attainment_bound, "mean_e2el": mean_latency_bound}
"""By objective: a function of requests and engine that bounds every scheduler, the SLO attainment from above and the
latency in s from below."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BenchmarkCell:
    """A workload at a load on an engine.

    Attributes:
        site: its name.
        load: fraction of the reference capacity, or "recorded".
        workload: at that load.
        engine: the machine.
        held_out: whether no policy was trained on it.
    """

    site: str
    load: Load
    workload: Workload
    engine: EngineConfig
    held_out: bool

    @property
    def name(self) -> str:
        """Site and load."""
        return f"{self.site}, load {load_text(self.load)}"


def suite_cells(
    alone: Scheduler, loads: Sequence[float], sites: Iterable[Site] = (*TRAINING, *HELD_OUT)
) -> tuple[list[BenchmarkCell], list[str]]:
    """The cells of all sites whose targets can be met.

    Args:
        alone: serves each request alone, to see whether it can meet its targets.
        loads: of every site.
        sites: in their order.

    Returns:
        (cells, names of the sites that are left out).
    """
    cells: list[BenchmarkCell] = []
    left_out: list[str] = []
    for site in sites:
        if site.feasible(alone):
            cells += [BenchmarkCell(site.name, load, site.at(load), site.engine, site in HELD_OUT) for load in loads]
        else:
            left_out.append(site.name)
    return cells, left_out


def measure(result: Result | NetworkResult, longest: float) -> tuple[float, ...]:
    """The numbers of `MEASURES` of a run that was stopped after `longest` s."""
    found = [OBJECTIVES[name].of_run(result, None, longest) for name in BENCHMARK_OBJECTIVES]
    return (*(value for value, _ in found), found[-1][1])


class CellRuns(ABC, Generic[T]):
    """Runs on the requests of a cell, kept in a file of the folder `runs`.

    T is what is run: a scheduler on one engine, or a scheduler behind a router on several.

    Args:
        cell: the cell.
        seeds: of its workload; a workload with the same requests for every seed (a trace) runs once.
        folder: of the benchmark. The name of the file has a digest of everything that determines the runs except T.
        more: further values that determine the runs.
    """

    def __init__(self, cell: BenchmarkCell, seeds: Sequence[int], folder: Path, *more: Any) -> None:
        self.cell = cell
        self.seeds, requests = distinct_seeds(cell.workload, seeds, cell.engine)
        self.longest = longest_run(cell.workload, cell.engine, self.seeds)
        sources = [source_of(part) for part in (Objective, measure, mean_latency_bound, slo_attainment_bound)]
        digest = digest_of(sources, requests, self.seeds, cell.engine, self.longest, *more)
        name = file_name(cell.site, load_text(cell.load), f"{self.seeds[0]}+{len(self.seeds)}", digest)
        self._path = folder / "runs" / f"{name}.json"
        empty: dict[str, Any] = {"cell": cell.name, "seeds": self.seeds, "measures": MEASURES, "runs": {}, "bounds": {}}
        self._kept = read_object_if_exists(self._path) or empty

    @abstractmethod
    def simulate(self, new: Sequence[T]) -> list[list[tuple[float, ...]]]:
        """Run each on every seed, on all cores; the numbers of `MEASURES` by [new][seeds]."""

    @abstractmethod
    def identity(self, one: T) -> tuple[Any, ...]:
        """Everything that determines its runs; equal parameters give equal identities."""

    @abstractmethod
    def text(self, one: T) -> str:
        """Its name in tables and files."""

    def of(self, candidates: Sequence[T]) -> list[np.ndarray]:
        """f8[seeds, MEASURES] of each; new ones are simulated."""
        keys = [hashlib.sha256(repr(self.identity(one)).encode()).hexdigest()[:16] for one in candidates]
        new = {key: one for key, one in zip(keys, candidates, strict=True) if key not in self._kept["runs"]}
        if new:
            for (key, one), values in zip(new.items(), self.simulate(list(new.values())), strict=True):
                self._kept["runs"][key] = {"scheduler": self.text(one), "values": values}
            write_json(self._path, self._kept)
        return [np.array(self._kept["runs"][key]["values"]) for key in keys]

    def bound(self, objective: str) -> np.ndarray:
        """A bound of the objective's metric for all schedulers by seed, f8[seeds]; nan if none is known."""
        return np.full(len(self.seeds), np.nan)

    def values(self, candidates: Sequence[T], objective: str) -> list[float]:
        """The objective of each over all seeds."""
        return [objective_of(runs, objective, self.longest) for runs in self.of(candidates)]


class EngineRuns(CellRuns[Scheduler]):
    """Runs of schedulers on one engine."""

    def simulate(self, new: Sequence[Scheduler]) -> list[list[tuple[float, ...]]]:
        """Run each on every seed, on all cores; the numbers of `MEASURES` by [new][seeds]."""
        runs = [(self.cell.workload, self.cell.engine, seed) for seed in self.seeds]
        return map_runs(new, runs, lambda result: measure(result, self.longest), self.longest, "requests")

    def identity(self, one: Scheduler) -> tuple[Any, ...]:
        """Code, parameters and weights."""
        return scheduler_digest(one)

    def text(self, one: Scheduler) -> str:
        """The scheduler with its parameters."""
        return describe(one)

    def bound(self, objective: str) -> np.ndarray:
        """A bound of the objective's metric for all schedulers by seed, f8[seeds]; nan if none is known."""
        if objective not in BOUNDS:
            return super().bound(objective)
        if objective not in self._kept["bounds"]:
            scale = 1.0 if OBJECTIVES[objective].larger_is_better else 1e3
            tables = (self.cell.workload.sample(seed) for seed in self.seeds)
            self._kept["bounds"][objective] = [scale * BOUNDS[objective](table, self.cell.engine) for table in tables]
            write_json(self._path, self._kept)
        return np.array(self._kept["bounds"][objective])


def metric_of(runs: np.ndarray, objective: str) -> np.ndarray:
    """The metric of an objective by seed, f8[seeds], from runs f8[seeds, MEASURES]."""
    return runs[:, MEASURES.index(objective)]


def objective_of(runs: np.ndarray, objective: str, longest: float) -> float:
    """An objective over runs f8[seeds, MEASURES], including its bound on TPOT; see `Objective.of_runs`."""
    pairs = np.column_stack([metric_of(runs, objective), runs[:, MEASURES.index("tpot_share")]])
    return OBJECTIVES[objective].of_runs(pairs, longest)
