"""Schedulers side by side: every scheduler on the same workloads, loads and seeds."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from tqdm import tqdm

from llmsched_env.evaluation.cases import Load, load_text
from llmsched_env.evaluation.run_cache import (
    describe,
    digest_of,
    distinct_seeds,
    file_name,
    scheduler_digest,
    source_of,
    versions,
)
from llmsched_env.files import cached, replacing
from llmsched_env.intervals import mean_interval
from llmsched_env.machine.config import EngineConfig
from llmsched_env.results.stability import Stability, stability
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate_many
from llmsched_env.slo import SLO
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.theory import capacity
from llmsched_env.theory.kv import kv_token_steps
from llmsched_env.theory.latency_bounds import mean_latency_bound
from llmsched_env.theory.rates import best_rate
from llmsched_env.theory.srpt import srpt_flow_times
from llmsched_env.theory.work import mean_work
from llmsched_env.validation import check_choice, check_number
from llmsched_env.workloads.closed_loop import ClosedLoop
from llmsched_env.workloads.workload import Workload

CellKey = tuple[str, str, Load]
"""(scheduler, workload, load), by their names in the comparison."""

SchedulerByCell = Mapping[tuple[str, Load], Scheduler]
"""One scheduler for each (workload, load), such as a rule that was tuned for each."""


@dataclass(frozen=True, slots=True, eq=False)
class ComparisonCell:
    """One scheduler on one workload at one load, over all seeds.

    Attributes:
        scheduler: its name in the comparison.
        workload: name of the workload in the comparison.
        load: as it was given to `compare`.
        rate: offered requests/s.
        capacity: reference capacity of engine and workload in requests/s.
        seeds: the seeds that were run; one if every seed gives the same requests.
        metrics: by name, one value a seed: the numbers of `Result.summary`; `mean_e2el_bound_ms`, a lower bound for
            every scheduler (`theory.mean_latency_bound`); `e2el_over_bound`, the mean E2E latency over that bound, nan
            unless all requests finished.
        stability: verdict over all seeds.
        stalls: number of runs that stalled.
        requests: rows of the first seed, for figures.
        end: time at which the run of the first seed stopped, in s.
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
        """Write to an npz file, atomically."""
        record = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "requests"}
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, record=json.dumps(record), requests=self.requests)

    @classmethod
    def from_file(cls, path: Path) -> ComparisonCell:
        """Read what `save` wrote."""
        with np.load(path) as file:
            record = json.loads(str(file["record"]))
            requests = file["requests"].view(np.recarray)
        record["seeds"] = tuple(record["seeds"])
        record["metrics"] = {name: tuple(values) for name, values in record["metrics"].items()}
        record["stability"] = Stability(*record["stability"])
        return cls(requests=requests, **record)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """All cells of a comparison and their common settings.

    Attributes:
        cells: by (scheduler, workload, load), in the order of the run.
        settings: each scheduler with its parameters, as text.
        notes: the origin of the parameters of each scheduler.
        engine: the machine.
        slo: limits for all requests; None: each request's own.
        horizon: clock in s at which runs stopped; None: they drained.
        versions: of everything that the numbers depend on.
    """

    cells: dict[CellKey, ComparisonCell]
    settings: dict[str, str]
    notes: dict[str, str]
    engine: EngineConfig
    slo: SLO | None
    horizon: float | None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def schedulers(self) -> list[str]:
        """Names of the schedulers, in order."""
        return list(dict.fromkeys(scheduler for scheduler, _, _ in self.cells))

    def by_workload_and_load(self) -> Iterator[tuple[str, Load, list[ComparisonCell]]]:
        """(workload, load, cells of all schedulers), in the order of the run."""
        for workload, load in dict.fromkeys(key[1:] for key in self.cells):
            yield workload, load, [self.cells[name, workload, load] for name in self.schedulers]


def compare(
    schedulers: Mapping[str, Scheduler | SchedulerByCell],
    workloads: Mapping[str, Workload | ClosedLoop],
    loads: Sequence[Load],
    seeds: Sequence[int],
    engine: EngineConfig,
    *,
    slo: SLO | None = None,
    horizon: float | None = None,
    folder: str | Path | None = None,
    notes: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Comparison:
    """Run every scheduler on the same workloads and reduce each run to its metrics.

    With a `folder`, every finished (scheduler, workload, load) is kept in `folder/cells` under a digest of everything
    that determines it: sources, scheduler, requests, engine, seeds, limits. An interrupted comparison continues where
    it stopped, and one with more schedulers runs only the new ones.

    Args:
        schedulers: by the name to print: a scheduler, or one for each (workload, load).
        workloads: by the name to print.
        loads: fractions of the reference capacity; "recorded" runs a workload at its own rate, and is the only one for
            users in a closed loop.
        seeds: of the workloads; a workload with the same requests for every seed (a trace) runs once.
        engine: the machine.
        slo: limits for all requests; None: each request's own.
        horizon: clock in s at which runs stop; None: they drain, so every latency is known.
        folder: where to keep finished cells; None: nowhere.
        notes: by scheduler, the origin of its parameters, for the report.
        progress: show progress bars.

    Raises:
        ValueError: if there is nothing to run, a load is not above 0, a scheduler is missing for a workload and load,
            or a note names an unknown scheduler.
    """
    _check(schedulers, workloads, loads, seeds, notes or {})
    cells: dict[CellKey, ComparisonCell] = {}
    total = len(schedulers) * len(workloads) * len(loads)
    with tqdm(total=total, unit="cell", dynamic_ncols=True, disable=None if progress else True) as bar:
        for (workload_name, workload), load in product(workloads.items(), loads):
            offered = workload if load == "recorded" else workload.at_load(load, engine)
            distinct, requests_digest = distinct_seeds(offered, seeds, engine)
            bounds = tuple(_LatencyBound.of(offered.sample(seed), engine) for seed in distinct)
            for name, setting in schedulers.items():
                scheduler = setting if isinstance(setting, Scheduler) else setting[workload_name, load]
                key = (name, workload_name, load)
                bar.set_description(f"{name} on {workload_name} at {load_text(load)}")
                job = _CellJob(
                    key=key,
                    scheduler=scheduler,
                    workload=offered,
                    engine=engine,
                    seeds=distinct,
                    bounds=bounds,
                    slo=slo,
                    horizon=horizon,
                    progress=progress,
                )
                if folder is None:
                    cells[key] = job.simulate()
                else:
                    path = job.path(Path(folder), requests_digest)
                    cells[key] = cached(path, ComparisonCell.from_file, job.simulate, ComparisonCell.save)
                bar.update()
    return Comparison(
        cells=cells,
        settings={name: _describe(setting) for name, setting in schedulers.items()},
        notes={name: _origin(setting) for name, setting in schedulers.items()} | dict(notes or {}),
        engine=engine,
        slo=slo,
        horizon=horizon,
        versions=versions(),
    )


def _describe(setting: Scheduler | SchedulerByCell) -> str:
    if isinstance(setting, Scheduler):
        return describe(setting)
    texts = [f"{workload}, load {load_text(load)}: {describe(s)}" for (workload, load), s in setting.items()]
    return "; ".join(texts)


def _origin(scheduler: Scheduler | SchedulerByCell) -> str:
    if not isinstance(scheduler, Scheduler):
        return "set for each workload and load"
    if scheduler.controller is not None:
        return "trained"
    return "set for this comparison" if scheduler.values else "published defaults"


class _LatencyBound(NamedTuple):
    """The number of requests of one seed, and a lower bound of their mean E2E latency in ms for every scheduler."""

    requests: int
    e2el_ms: float

    @classmethod
    def of(cls, table: RequestTable | TaskTable, engine: EngineConfig) -> Self:
        if isinstance(table, TaskTable):  # arrivals follow from the scheduler: nothing is known of their latencies
            return cls(0, math.nan)
        return cls(len(table), math.nan if engine.step_noise else 1e3 * mean_latency_bound(table, engine))

    def metrics_of(self, summary: dict[str, float]) -> dict[str, float]:
        """The bound, and the mean latency of a run over it; nan unless all requests finished, as the bound assumes."""
        all_finished = summary["completed"] == self.requests
        over = summary["mean_e2el_ms"] / self.e2el_ms if all_finished else math.nan
        return {"mean_e2el_bound_ms": self.e2el_ms, "e2el_over_bound": over}


@dataclass(frozen=True, slots=True)
class _CellJob:
    """Everything that determines one cell."""

    key: CellKey
    scheduler: Scheduler
    workload: Workload | ClosedLoop
    engine: EngineConfig
    seeds: tuple[int, ...]
    bounds: tuple[_LatencyBound, ...]
    slo: SLO | None
    horizon: float | None
    progress: bool

    def simulate(self) -> ComparisonCell:
        """Simulate all seeds and reduce them to numbers."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*stalled", RuntimeWarning)  # the cell counts stalls
            results = simulate_many(
                self.scheduler, self.workload, self.engine, self.seeds, self.horizon, progress=self.progress
            )
        summaries = [result.summary(self.slo) for result in results]
        for bound, summary in zip(self.bounds, summaries, strict=True):
            summary |= bound.metrics_of(summary)
        return ComparisonCell(
            *self.key,
            rate=self.workload.rate,
            capacity=results[0].capacity,
            seeds=self.seeds,
            metrics={name: tuple(summary[name] for summary in summaries) for name in summaries[0]},
            stability=stability(results),
            stalls=sum(result.stalled for result in results),
            requests=results[0].requests,
            end=results[0].end,
        )

    def path(self, folder: Path, requests_digest: str) -> Path:
        """The file that the cell is kept in."""
        what = (requests_digest, scheduler_digest(self.scheduler), self.engine, self.seeds, self.slo, self.horizon)
        digest = digest_of(*(source_of(part) for part in _REDUCTION), *what)
        scheduler, workload, load = self.key
        return folder / "cells" / f"{file_name(scheduler, workload, load_text(load), digest)}.npz"


_REDUCTION = (
    *(stability, mean_interval, ComparisonCell, capacity, mean_work, kv_token_steps),
    *(mean_latency_bound, srpt_flow_times, best_rate),
)
"""Code that computes cells from rows, beyond the sources in every digest."""


def _check(
    schedulers: Mapping[str, Any],
    workloads: Mapping[str, Any],
    loads: Sequence[Load],
    seeds: Sequence[int],
    notes: Mapping[str, str],
) -> None:
    for name, values in (("schedulers", schedulers), ("workloads", workloads), ("loads", loads), ("seeds", seeds)):
        if not values:
            raise ValueError(f"{name} is empty; at least one is needed")
    for load in loads:
        if load != "recorded":
            check_number("load", load, above=0)
    for name, setting in schedulers.items():
        missing = [] if isinstance(setting, Scheduler) else [c for c in product(workloads, loads) if c not in setting]
        if missing:
            raise ValueError(f"scheduler {name!r} is given by workload and load; there is none for {missing[0]!r}")
    for name in notes:
        check_choice("scheduler of a note", name, schedulers)
