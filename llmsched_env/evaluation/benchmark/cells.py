"""The cells of the benchmark: a site of the suite at a load, and what is kept of a run on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmsched_env.evaluation.cell import Load, load_text
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.evaluation.suite import HELD_OUT, TRAINING, Site
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.workloads import Workload

JUDGED = ("slo_attainment", "mean_e2el", "p99_ttft")
"""Objectives of the benchmark; the third is reported, and nothing is claimed of it."""

MEASURES = (*JUDGED, "tpot_share")
"""What a run is reduced to: the metrics of these objectives, and the share of requests within their TPOT target."""


@dataclass(frozen=True, slots=True)
class Cell:
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


def suite_cells(alone: Scheduler, loads: Sequence[float], sites: Iterable[Site] = (*TRAINING, *HELD_OUT)) -> tuple:
    """The cells whose targets can be met, and the names of the sites that are left out.

    Args:
        alone: serves each request by itself, to see whether it can meet its targets.
        loads: of every site.
        sites: in their order.

    Returns:
        (list of cells, list of names).
    """
    cells, left_out = [], []
    for site in sites:
        if site.feasible(alone):
            cells += [Cell(site.name, load, site.at(load), site.engine, site in HELD_OUT) for load in loads]
        else:
            left_out.append(site.name)
    return cells, left_out


def measure(result: Result, longest: float) -> tuple[float, ...]:
    """One run that was given `longest` s, as the numbers of `MEASURES`."""
    found = [OBJECTIVES[name].of_run(result, None, longest) for name in JUDGED]
    return (*(value for value, _ in found), found[-1][1])
