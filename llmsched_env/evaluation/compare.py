"""Schedulers side by side: every scheduler on the same workloads, loads and seeds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tqdm import tqdm

from llmsched_env.evaluation.cell import Cell, Key, Load, load_text
from llmsched_env.evaluation.identity import (
    describe,
    digest_of,
    distinct_seeds,
    file_name,
    scheduler_digest,
    source_of,
    versions,
)
from llmsched_env.intervals import mean_interval
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate_many
from llmsched_env.simulator.stability import stability
from llmsched_env.theory import capacity
from llmsched_env.theory.kv import kv_token_steps
from llmsched_env.theory.latency_bounds import mean_latency_bound
from llmsched_env.theory.rates import best_token_rate
from llmsched_env.theory.srpt import srpt_flow_times
from llmsched_env.theory.work import mean_work
from llmsched_env.validation import check_choice, check_number

if TYPE_CHECKING:
    from llmsched_env.simulator.config import EngineConfig
    from llmsched_env.slo import SLO
    from llmsched_env.workloads.table import RequestTable
    from llmsched_env.workloads.workload import Workload


Setting = Scheduler | Mapping[tuple[str, Load], Scheduler]
"""One scheduler for all cells, or one for each (workload, load): the same rule, tuned for each."""


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """All cells, and what was run.

    Attributes:
        cells: by (scheduler, workload, load), in the order of the run.
        settings: what each scheduler is, with its parameters.
        notes: where the parameters of a scheduler come from.
        engine: the machine.
        slo: limits for all requests; None: each request's own.
        horizon: clock in s at which runs stopped; None: they drained.
        versions: of what the numbers depend on.
    """

    cells: dict[Key, Cell]
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

    def blocks(self) -> Iterator[tuple[str, Load, list[Cell]]]:
        """(workload, load, cells of all schedulers) one after the other."""
        for workload, load in dict.fromkeys(key[1:] for key in self.cells):
            yield workload, load, [self.cells[name, workload, load] for name in self.schedulers]


def compare(
    schedulers: Mapping[str, Setting],
    workloads: Mapping[str, Workload],
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

    With a `folder`, every finished (scheduler, workload, load) is kept in `folder/cells`, and found again by a digest
    of all that determines it: sources, scheduler, requests, engine, seeds, limits. So an interrupted comparison goes
    on where it stopped, and one with more schedulers runs only those that are new.

    Args:
        schedulers: by the name to print; one that differs from cell to cell by its (workload, load).
        workloads: by the name to print.
        loads: fractions of the reference capacity; "recorded" runs a workload at its own rate.
        seeds: seeds of the workloads; a workload that is the same for all of them (a trace) runs once.
        engine: the machine.
        slo: limits for all requests; None: each request's own.
        horizon: clock in s at which to stop; None drains, so that every latency is known.
        folder: where to keep finished cells; None keeps nothing.
        notes: where the parameters of a scheduler come from, by name, for the report.
        progress: whether to show progress bars.

    Raises:
        ValueError: if there is nothing to run, a load is not above 0, a scheduler is missing for a workload and load,
            or a note names an unknown scheduler.
    """
    _check(schedulers, workloads, loads, seeds, notes or {})
    cells: dict[Key, Cell] = {}
    total = len(schedulers) * len(workloads) * len(loads)
    with tqdm(total=total, unit="cell", dynamic_ncols=True, disable=not progress) as bar:
        for (workload_name, workload), load in product(workloads.items(), loads):
            offered = workload if load == "recorded" else workload.at_load(load, engine)
            distinct, requests_digest = distinct_seeds(offered, seeds)
            least = tuple(_Least.of(offered.sample(seed), engine) for seed in distinct)
            for name, setting in schedulers.items():
                scheduler = setting if isinstance(setting, Scheduler) else setting[workload_name, load]
                key = (name, workload_name, load)
                bar.set_description(f"{name} on {workload_name} at {load_text(load)}")
                run = _Run(scheduler, offered, engine, distinct, least, slo, horizon, progress)
                cells[key] = run.cell(key) if folder is None else run.kept_cell(key, Path(folder), requests_digest)
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


def _describe(setting: Setting) -> str:
    if isinstance(setting, Scheduler):
        return describe(setting)
    texts = [f"{workload}, load {load_text(load)}: {describe(s)}" for (workload, load), s in setting.items()]
    return "; ".join(texts)


def _origin(scheduler: Setting) -> str:
    if not isinstance(scheduler, Scheduler):
        return "set for each workload and load"
    if scheduler.controller is not None:
        return "trained"
    return "set for this comparison" if scheduler.values else "published defaults"


class _Least(NamedTuple):
    """What every scheduler is up against in one seed: so many requests, and a mean E2E latency in ms of at least so."""

    requests: int
    e2el_ms: float

    @classmethod
    def of(cls, table: RequestTable, engine: EngineConfig) -> Self:
        return cls(len(table), 1e3 * mean_latency_bound(table, engine))

    def distance(self, summary: dict[str, float]) -> dict[str, float]:
        """The bound and how many times as much a run took; nan unless all requests finished, as the bound supposes."""
        all_finished = summary["completed"] == self.requests
        over = summary["mean_e2el_ms"] / self.e2el_ms if all_finished else math.nan
        return {"mean_e2el_bound_ms": self.e2el_ms, "e2el_over_bound": over}


@dataclass(frozen=True, slots=True)
class _Run:
    """What makes one cell."""

    scheduler: Scheduler
    workload: Workload
    engine: EngineConfig
    seeds: tuple[int, ...]
    least: tuple[_Least, ...]
    slo: SLO | None
    horizon: float | None
    progress: bool

    def cell(self, key: Key) -> Cell:
        """Simulate all seeds and reduce them to numbers."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*stalled", RuntimeWarning)  # the cell says so
            results = simulate_many(
                self.scheduler, self.workload, self.engine, self.seeds, self.horizon, progress=self.progress
            )
        summaries = [result.summary(self.slo) for result in results]
        for least, summary in zip(self.least, summaries, strict=True):
            summary |= least.distance(summary)
        return Cell(
            *key,
            rate=self.workload.rate,
            capacity=results[0].capacity,
            seeds=self.seeds,
            metrics={name: tuple(summary[name] for summary in summaries) for name in summaries[0]},
            stability=stability(results),
            stalls=sum(result.stalled for result in results),
            requests=results[0].requests,
            end=results[0].end,
        )

    def kept_cell(self, key: Key, folder: Path, requests_digest: str) -> Cell:
        """The cell from the folder if it is there, else simulated and put there."""
        what = (requests_digest, scheduler_digest(self.scheduler), self.engine, self.seeds, self.slo, self.horizon)
        digest = digest_of(*(source_of(part) for part in _REDUCTION), *what)
        path = folder / "cells" / f"{file_name(*key[:2], load_text(key[2]), digest)}.npz"
        if path.exists():
            return Cell.from_file(path)
        new = self.cell(key)
        new.save(path)
        return new


_REDUCTION = (
    *(stability, mean_interval, Cell, capacity, mean_work, kv_token_steps),
    *(mean_latency_bound, srpt_flow_times, best_token_rate),
)
"""What makes cells of rows, beyond the sources that every digest holds."""


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
