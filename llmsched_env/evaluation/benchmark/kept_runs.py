"""Runs of schedulers on one cell, each simulated once: kept in a file, found again, only new ones run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

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
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.theory import mean_latency_bound, slo_attainment_bound

BOUNDS = {"slo_attainment": slo_attainment_bound, "mean_e2el": mean_latency_bound}
"""By objective: of the requests of a seed on an engine, what no scheduler exceeds, or goes below (s)."""


class KeptRuns:
    """The runs of a cell on some seeds.

    Args:
        cell: where.
        seeds: of its workload; a workload that is the same for all of them (a trace) runs once.
        folder: where the file goes; its name holds a digest of what determines the runs beyond the scheduler.
    """

    def __init__(self, cell: Cell, seeds: Sequence[int], folder: Path) -> None:
        self.cell = cell
        self.seeds, requests = distinct_seeds(cell.workload, seeds)
        self.longest = longest_run(cell.workload, cell.engine, self.seeds)
        sources = [
            source_of(part) for part in (type(OBJECTIVES[JUDGED[0]]), measure, mean_latency_bound, slo_attainment_bound)
        ]
        digest = digest_of(sources, requests, self.seeds, cell.engine, self.longest)
        name = file_name(cell.site, load_text(cell.load), f"{self.seeds[0]}+{len(self.seeds)}", digest)
        self._path = folder / "runs" / f"{name}.json"
        empty = {"cell": cell.name, "seeds": self.seeds, "measures": MEASURES, "runs": {}, "bounds": {}}
        self._kept = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else empty

    def of(self, schedulers: Sequence[Scheduler]) -> list[np.ndarray]:
        """f8[seeds, MEASURES] of each scheduler; those that are new are simulated, on all cores."""
        keys = [_key(scheduler) for scheduler in schedulers]
        new = {key: s for key, s in zip(keys, schedulers, strict=True) if key not in self._kept["runs"]}
        if new:
            runs = [(self.cell.workload, self.cell.engine, seed) for seed in self.seeds]
            found = map_runs(
                list(new.values()), runs, lambda result: measure(result, self.longest), self.longest, "requests"
            )
            for (key, scheduler), values in zip(new.items(), found, strict=True):
                self._kept["runs"][key] = {"scheduler": describe(scheduler), "values": values}
            self._write()
        return [np.array(self._kept["runs"][key]["values"]) for key in keys]

    def bound(self, objective: str) -> np.ndarray:
        """f8[seeds], in the unit of the objective's metric: what no scheduler exceeds, or goes below."""
        if objective not in self._kept["bounds"]:
            scale = 1.0 if OBJECTIVES[objective].larger_is_better else 1e3
            tables = (self.cell.workload.sample(seed) for seed in self.seeds)
            self._kept["bounds"][objective] = [scale * BOUNDS[objective](table, self.cell.engine) for table in tables]
            self._write()
        return np.array(self._kept["bounds"][objective])

    def values(self, schedulers: Sequence[Scheduler], objective: str) -> list[float]:
        """The objective of each scheduler over all seeds."""
        return [objective_of(runs, objective, self.longest) for runs in self.of(schedulers)]

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(self._kept), encoding="utf-8")
        partial.replace(self._path)


def metric_of(runs: np.ndarray, objective: str) -> np.ndarray:
    """f8[seeds]: the metric of an objective, of runs f8[seeds, MEASURES]."""
    return runs[:, MEASURES.index(objective)]


def objective_of(runs: np.ndarray, objective: str, longest: float) -> float:
    """An objective over runs f8[seeds, MEASURES], its bound on TPOT included."""
    pairs = np.column_stack([metric_of(runs, objective), runs[:, MEASURES.index("tpot_share")]])
    return OBJECTIVES[objective].of_runs(pairs, longest)


def _key(scheduler: Scheduler) -> str:
    """Sixteen digits for what determines the scheduler; its values count, not how they were bound."""
    return hashlib.sha256(repr(scheduler_digest(scheduler)).encode()).hexdigest()[:16]
