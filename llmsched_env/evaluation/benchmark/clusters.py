"""Clusters of equal engines: the policy on every engine behind a router, against the best scheduler and router."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmsched_env.evaluation.benchmark.cell_runs import BenchmarkCell, CellRuns, measure
from llmsched_env.evaluation.cases import map_cases
from llmsched_env.evaluation.run_cache import describe, scheduler_digest
from llmsched_env.evaluation.suite import H100, HELD_OUT, RTX4090, Site
from llmsched_env.objectives import OBJECTIVES
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.tables.task_table import TaskTable
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
class ClusterCell(BenchmarkCell):
    """A workload at a load of several equal engines; `engine` is one of them.

    Attributes:
        engines: number of engines.
        single: the cell of one engine at the same load.
    """

    engines: int
    single: BenchmarkCell


@dataclass(frozen=True, slots=True)
class RoutedScheduler:
    """A scheduler on every engine, behind a router."""

    scheduler: Scheduler
    router: Router


def cluster_cells(
    sites: Sequence[Site] = SITES, loads: Sequence[float] = LOADS, engines: int = ENGINES, horizon: float = HORIZON
) -> list[ClusterCell]:
    """Every site with a number of engines, at every load of all engines together.

    Raises:
        ValueError: if `engines` is below 2.
    """
    check_integer("engines", engines, at_least=2)
    cells = []
    for site in sites:
        for load in loads:
            single = BenchmarkCell(site.name, load, site.at(load), site.engine, site in HELD_OUT)
            workload = site.at(engines * load, horizon)
            cells.append(
                ClusterCell(
                    site=f"{engines} x {site.name}",
                    load=load,
                    workload=workload,
                    engine=site.engine,
                    held_out=single.held_out,
                    engines=engines,
                    single=single,
                )
            )
    return cells


class ClusterRuns(CellRuns[RoutedScheduler]):
    """Runs of schedulers behind routers on a cluster."""

    cell: ClusterCell

    def __init__(self, cell: ClusterCell, seeds: Sequence[int], folder: Path) -> None:
        super().__init__(cell, seeds, folder, cell.engines)

    def simulate(self, new: Sequence[RoutedScheduler]) -> list[list[tuple[float, ...]]]:
        """Run each on every seed, on all cores; the numbers of `MEASURES` over all engines by [new][seeds]."""
        engines = (self.cell.engine,) * self.cell.engines

        def run(pair: RoutedScheduler, tasks: TaskTable, seed: int) -> tuple[float, ...]:
            result = simulate_network(
                pair.scheduler, tasks, engines, pair.router, seed, horizon=self.longest, record="requests"
            )
            return measure(result, self.longest)

        drawn = ((TaskTable.from_columns(self.cell.workload.sample(seed)), seed) for seed in self.seeds)
        return map_cases(run, new, drawn)

    def identity(self, one: RoutedScheduler) -> tuple[Any, ...]:
        """Scheduler, router and its parameters; the sources of routers are in the name of the file."""
        return scheduler_digest(one.scheduler), one.router.name, one.router.param_values().tolist()

    def text(self, one: RoutedScheduler) -> str:
        """The router, and the scheduler with its parameters."""
        return f"{one.router.name}, {describe(one.scheduler)}"


def best_pair(
    cell: ClusterCell,
    objective: str,
    schedulers: Sequence[Scheduler],
    seeds: Sequence[int],
    folder: Path,
    routers: Sequence[Router],
) -> RoutedScheduler:
    """The best combination of a scheduler and a router on these seeds; of equals the first."""
    pairs = [RoutedScheduler(scheduler, router) for scheduler in schedulers for router in routers]
    values = ClusterRuns(cell, seeds, folder).values(pairs, objective)
    return max(zip(pairs, values, strict=True), key=lambda item: OBJECTIVES[objective].score(item[1]))[0]
