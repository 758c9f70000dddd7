"""Runs on one cell, each simulated once: kept in a file, found again, only new ones run."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from llmsched_env.evaluation.benchmark.cells import JUDGED, MEASURES, Cell, measure
from llmsched_env.evaluation.cases import map_runs
from llmsched_env.evaluation.cell import load_text
from llmsched_env.evaluation.identity import (
    describe,
    digest_of,
    distinct_seeds,
    file_name,
    scheduler_digest,
    source_of,
)
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.evaluation.tuning import longest_run
from llmsched_env.json_files import write_json
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.theory import mean_latency_bound, slo_attainment_bound

BOUNDS = {"slo_attainment": slo_attainment_bound, "mean_e2el": mean_latency_bound}
"""By objective: of the requests of a seed on an engine, what no scheduler exceeds, or goes below (s)."""


T = TypeVar("T")


class RunsOfCell(ABC, Generic[T]):
    """The runs of a cell on some seeds, of whatever serves it.

    Args:
        cell: where.
        seeds: of its workload; a workload that is the same for all of them (a trace) runs once.
        folder: where the file goes; its name holds a digest of what determines the runs beyond what serves.
        more: determines the runs as well.
    """

    def __init__(self, cell: Cell, seeds: Sequence[int], folder: Path, *more: Any) -> None:
        self.cell = cell
        self.seeds, requests = distinct_seeds(cell.workload, seeds)
        self.longest = longest_run(cell.workload, cell.engine, self.seeds)
        sources = [
            source_of(part) for part in (type(OBJECTIVES[JUDGED[0]]), measure, mean_latency_bound, slo_attainment_bound)
        ]
        digest = digest_of(sources, requests, self.seeds, cell.engine, self.longest, *more)
        name = file_name(cell.site, load_text(cell.load), f"{self.seeds[0]}+{len(self.seeds)}", digest)
        self._path = folder / "runs" / f"{name}.json"
        empty = {"cell": cell.name, "seeds": self.seeds, "measures": MEASURES, "runs": {}, "bounds": {}}
        self._kept = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else empty

    @abstractmethod
    def simulate(self, new: Sequence[T]) -> list[list[tuple[float, ...]]]:
        """`MEASURES` of each on every seed, on all cores; [new][seeds]."""

    @abstractmethod
    def identity(self, one: T) -> tuple[Any, ...]:
        """What determines its runs here; values count, not how they were bound."""

    @abstractmethod
    def text(self, one: T) -> str:
        """How tables and files call it."""

    def of(self, serving: Sequence[T]) -> list[np.ndarray]:
        """f8[seeds, MEASURES] of each; those that are new are simulated."""
        keys = [hashlib.sha256(repr(self.identity(one)).encode()).hexdigest()[:16] for one in serving]
        new = {key: one for key, one in zip(keys, serving, strict=True) if key not in self._kept["runs"]}
        if new:
            for (key, one), values in zip(new.items(), self.simulate(list(new.values())), strict=True):
                self._kept["runs"][key] = {"scheduler": self.text(one), "values": values}
            write_json(self._path, self._kept)
        return [np.array(self._kept["runs"][key]["values"]) for key in keys]

    def bound(self, objective: str) -> np.ndarray:
        """f8[seeds], in the unit of the objective's metric: what nothing exceeds, or goes below; nan: none is known."""
        return np.full(len(self.seeds), np.nan)

    def values(self, serving: Sequence[T], objective: str) -> list[float]:
        """The objective of each over all seeds."""
        return [objective_of(runs, objective, self.longest) for runs in self.of(serving)]


class KeptRuns(RunsOfCell[Scheduler]):
    """The runs of schedulers on one engine."""

    def simulate(self, new: Sequence[Scheduler]) -> list[list[tuple[float, ...]]]:
        """`MEASURES` of each on every seed, on all cores; [new][seeds]."""
        runs = [(self.cell.workload, self.cell.engine, seed) for seed in self.seeds]
        return map_runs(new, runs, lambda result: measure(result, self.longest), self.longest, "requests")

    def identity(self, one: Scheduler) -> tuple[Any, ...]:
        """Code, parameters and weights."""
        return scheduler_digest(one)

    def text(self, one: Scheduler) -> str:
        """The scheduler with its parameters."""
        return describe(one)

    def bound(self, objective: str) -> np.ndarray:
        """f8[seeds], in the unit of the objective's metric: what no scheduler exceeds, or goes below."""
        if objective not in BOUNDS:
            return super().bound(objective)
        if objective not in self._kept["bounds"]:
            scale = 1.0 if OBJECTIVES[objective].larger_is_better else 1e3
            tables = (self.cell.workload.sample(seed) for seed in self.seeds)
            self._kept["bounds"][objective] = [scale * BOUNDS[objective](table, self.cell.engine) for table in tables]
            write_json(self._path, self._kept)
        return np.array(self._kept["bounds"][objective])


def metric_of(runs: np.ndarray, objective: str) -> np.ndarray:
    """f8[seeds]: the metric of an objective, of runs f8[seeds, MEASURES]."""
    return runs[:, MEASURES.index(objective)]


def objective_of(runs: np.ndarray, objective: str, longest: float) -> float:
    """An objective over runs f8[seeds, MEASURES], its bound on TPOT included."""
    pairs = np.column_stack([metric_of(runs, objective), runs[:, MEASURES.index("tpot_share")]])
    return OBJECTIVES[objective].of_runs(pairs, longest)
