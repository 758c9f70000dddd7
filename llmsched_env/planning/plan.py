"""A fleet plan: the sizings of machines and schedulers side by side, as rows and JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llmsched_env.files import write_json
from llmsched_env.planning.sizing import FleetPoint, Option, Sizing, size
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.workloads import ClosedLoop, Workload


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """The sizings of all machines and schedulers.

    Attributes:
        workload: its name.
        rate: offered requests/s.
        target: share of requests that must meet their targets.
        router: its name.
        sizings: by (machine, scheduler).
    """

    workload: str
    rate: float
    target: float
    router: str
    sizings: Mapping[tuple[str, str], Sizing]

    @property
    def cheapest(self) -> tuple[str, str] | None:
        """The (machine, scheduler) that reaches the target at the lowest price per hour; None if none does."""
        costs = {key: s.replicas * s.option.price for key, s in self.sizings.items() if s.replicas is not None}
        return min(costs, key=costs.__getitem__) if costs else None

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each machine and scheduler; costs are in the currency of the prices."""
        return [self._row(*key, sizing) for key, sizing in self.sizings.items()]

    def _row(self, machine: str, scheduler: str, sizing: Sizing) -> dict[str, Any]:
        row: dict[str, Any] = {
            "machine": machine,
            "scheduler": scheduler,
            "replicas": sizing.replicas,
            "replicas_at_least": sizing.at_least,
            "first_guess": sizing.first_guess,
            "requests": sizing.demand.requests,
            "do_not_fit": sizing.demand.unfit,
            "late_even_alone": sizing.demand.late,
            "seconds": sizing.demand.seconds,
            "warnings": sizing.warnings,
            "flags": {flag.option: flag.value for flag in sizing.flags},
            "flag_changes": {flag.option: flag.changes for flag in sizing.flags},
            "points": [_point_row(sizing, point) for _, point in sorted(sizing.points.items())],
        }
        if sizing.replicas is not None:
            row |= {
                "cost_per_hour": sizing.replicas * sizing.option.price,
                **_point_row(sizing, sizing.points[sizing.replicas]),
            }
        return row

    def save(self, path: Path) -> None:
        """Write all numbers to a JSON file, atomically."""
        record = {
            "workload": self.workload,
            "rate": self.rate,
            "target": self.target,
            "router": self.router,
            "cheapest": self.cheapest,
            "rows": self.rows(),
        }
        write_json(path, _finite(record), indent=1)


def plan(
    options: Sequence[Option],
    schedulers: Mapping[str, Scheduler],
    workload: Workload | ClosedLoop,
    router: Router,
    target: float = 0.99,
    report: Callable[[str, str, FleetPoint], None] | None = None,
    **search: int,
) -> FleetPlan:
    """`size` for every machine and scheduler.

    Args:
        options: the machines.
        schedulers: by the name to print.
        workload: with its targets.
        router: of every fleet.
        target: share of requests that must meet their targets.
        report: called with machine, scheduler and each simulated fleet.
        search: further arguments of `size`.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    if not options or not schedulers:
        raise ValueError(f"options and schedulers must not be empty, got {len(options)} and {len(schedulers)}")
    sizings = {}
    for option in options:
        for name, scheduler in schedulers.items():
            tell = None if report is None else partial(report, option.name, name)
            sizings[option.name, name] = size(option, scheduler, workload, router, target, report=tell, **search)
    return FleetPlan(workload=workload.name, rate=workload.rate, target=target, router=router.name, sizings=sizings)


def _point_row(sizing: Sizing, point: FleetPoint) -> dict[str, Any]:
    row: dict[str, Any] = {"replicas": point.replicas, "seeds": len(point.attainment)}
    row["load"] = sizing.demand.load / point.replicas
    for name in ("attainment", "goodput", "tokens", "utilisation"):
        row[name], row[f"{name}_half_width"] = point.interval(name)
    row["cost_per_million_tokens"] = sizing.cost_per_million_tokens(point.replicas)
    row["marginal_goodput"] = sizing.marginal_goodput(point.replicas)
    return row


def _finite(value: object) -> object:
    """The same value with null for nan and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
