"""Clusters of equal engines: the policy on each behind a router, against the best pair of scheduler and router."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmsched_env.evaluation.benchmark.cells import Cell, measure
from llmsched_env.evaluation.benchmark.kept_runs import RunsOfCell
from llmsched_env.evaluation.cases import map_cases
from llmsched_env.evaluation.identity import describe, scheduler_digest
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.evaluation.suite import H100, HELD_OUT, RTX4090, Site
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.simulator.task_table import TaskTable
from llmsched_env.validation import check_integer

SITES = (
    Site("azure-chat", "default", H100),
    Site("multi-tenant", "default", H100),
    Site("azure-chat", "default", RTX4090),
)
ENGINES = 4
LOADS = (0.8, 0.95)
HORIZON = 60.0  # s of arrivals
SAME_ROUTER = "best tuned baseline, same router"


@dataclass(frozen=True, slots=True)
class ClusterCell(Cell):
    """A workload at a load of several engines; `engine` is one of them.

    Attributes:
        engines: how many.
        single: one engine of it at the same load, as the suite has it.
    """

    engines: int
    single: Cell


@dataclass(frozen=True, slots=True)
class Pair:
    """A scheduler on every engine, behind a router."""

    scheduler: Scheduler
    router: Router


def cluster_cells(
    sites: Sequence[Site] = SITES, loads: Sequence[float] = LOADS, engines: int = ENGINES, horizon: float = HORIZON
) -> list[ClusterCell]:
    """Every site with so many engines at every load of all of them together.

    Raises:
        ValueError: if `engines` is below 2.
    """
    check_integer("engines", engines, at_least=2)
    cells = []
    for site in sites:
        for load in loads:
            single = Cell(site.name, load, site.at(load), site.engine, site in HELD_OUT)
            workload = site.at(engines * load, horizon)
            cells.append(
                ClusterCell(f"{engines} x {site.name}", load, workload, site.engine, single.held_out, engines, single)
            )
    return cells


class ClusterRuns(RunsOfCell[Pair]):
    """The runs of pairs on a cluster."""

    cell: ClusterCell

    def __init__(self, cell: ClusterCell, seeds: Sequence[int], folder: Path) -> None:
        super().__init__(cell, seeds, folder, cell.engines)

    def simulate(self, new: Sequence[Pair]) -> list[list[tuple[float, ...]]]:
        """`MEASURES` of each on every seed, over the requests of all engines, on all cores; [new][seeds]."""
        engines = (self.cell.engine,) * self.cell.engines

        def run(pair: Pair, tasks: TaskTable, seed: int) -> tuple[float, ...]:
            result = simulate_network(
                pair.scheduler, tasks, engines, pair.router, seed, horizon=self.longest, record="requests"
            )
            return measure(result, self.longest)

        drawn = ((TaskTable.from_columns(self.cell.workload.sample(seed)), seed) for seed in self.seeds)
        return map_cases(run, new, drawn)

    def identity(self, one: Pair) -> tuple[Any, ...]:
        """Scheduler, router and its parameters; the code of routers is in the name of the file."""
        return scheduler_digest(one.scheduler), one.router.name, one.router.param_values().tolist()

    def text(self, one: Pair) -> str:
        """Router, and scheduler with its parameters."""
        return f"{one.router.name}, {describe(one.scheduler)}"


def best_pair(
    cell: ClusterCell,
    objective: str,
    schedulers: Sequence[Scheduler],
    seeds: Sequence[int],
    folder: Path,
    routers: Sequence[Router],
) -> Pair:
    """The best of all pairs on these seeds, the first of equals."""
    pairs = [Pair(scheduler, router) for scheduler in schedulers for router in routers]
    values = ClusterRuns(cell, seeds, folder).values(pairs, objective)
    return max(zip(pairs, values, strict=True), key=lambda item: OBJECTIVES[objective].score(item[1]))[0]
