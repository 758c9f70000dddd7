"""One scheduler on one workload at one load: the unit that a comparison computes, keeps and prints."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np

from llmsched_env.intervals import mean_interval
from llmsched_env.simulator.stability import Stability

Load = float | Literal["recorded"]
Key = tuple[str, str, Load]
"""(scheduler, workload, load), under the names of the comparison."""


def load_text(load: Load) -> str:
    """A load as it is printed."""
    return load if isinstance(load, str) else f"{load:g}"


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One scheduler on one workload at one load, over all seeds.

    Attributes:
        scheduler: its name in the comparison.
        workload: name of the workload in the comparison.
        load: as asked for.
        rate: offered requests/s.
        capacity: reference capacity of engine and workload in requests/s.
        seeds: the seeds that were run; one if every seed gives the same requests.
        metrics: a value a seed by name: those of `metrics.summary`; mean_e2el_bound_ms, below which no scheduler is
            (`theory.mean_latency_bound`); e2el_over_bound, the mean E2E latency over it, nan unless all finished.
        stability: verdict over all seeds.
        stalls: how many runs stalled.
        requests: rows of the first seed, for pictures.
        end: when the run of the first seed stopped, in s.
    """

    scheduler: str
    workload: str
    load: Load
    rate: float
    capacity: float
    seeds: tuple[int, ...]
    metrics: dict[str, tuple[float, ...]]
    stability: Stability
    stalls: int
    requests: np.recarray
    end: float

    def interval(self, metric: str) -> tuple[float, float]:
        """Mean of a metric over the seeds and half width of its 95 % t-interval (nan for one seed)."""
        return mean_interval(self.metrics[metric])

    def save(self, path: Path) -> None:
        """Write to an npz file, all or nothing."""
        record = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "requests"}
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez_compressed(file, record=json.dumps(record), requests=self.requests)
        partial.replace(path)

    @classmethod
    def from_file(cls, path: Path) -> Cell:
        """Read what `save` wrote."""
        with np.load(path) as file:
            record = json.loads(str(file["record"]))
            requests = file["requests"].view(np.recarray)
        record["seeds"] = tuple(record["seeds"])
        record["metrics"] = {name: tuple(values) for name, values in record["metrics"].items()}
        record["stability"] = Stability(*record["stability"])
        return cls(requests=requests, **record)
