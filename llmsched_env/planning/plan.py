"""A plan: machines and schedulers side by side, as rows, text and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmsched_env.planning.sizing import Option, Point, Sizing, size
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.workloads import Workload


@dataclass(frozen=True, slots=True)
class Plan:
    """Answers for all machines and schedulers.

    Attributes:
        workload: its name.
        rate: offered requests/s.
        target: share of requests that have to meet their targets.
        router: its name.
        sizings: by (machine, scheduler), in the order asked for.
    """

    workload: str
    rate: float
    target: float
    router: str
    sizings: Mapping[tuple[str, str], Sizing]

    @property
    def cheapest(self) -> tuple[str, str] | None:
        """The machine and scheduler that reach the target at the lowest price per hour; None if none does."""
        costs = {key: s.replicas * s.option.price for key, s in self.sizings.items() if s.replicas is not None}
        return min(costs, key=costs.__getitem__) if costs else None

    def rows(self) -> list[dict]:
        """One dictionary for each machine and scheduler; costs are in the currency of the prices."""
        return [self._row(*key, sizing) for key, sizing in self.sizings.items()]

    def _row(self, machine: str, scheduler: str, sizing: Sizing) -> dict:
        row = {
            "machine": machine,
            "scheduler": scheduler,
            "replicas": sizing.replicas,
            "replicas_at_least": sizing.at_least,
            "first_guess": sizing.first_guess,
            "points": [_point_row(sizing, point) for _, point in sorted(sizing.points.items())],
        }
        if sizing.replicas is not None:
            row |= {
                "cost_per_hour": sizing.replicas * sizing.option.price,
                **_point_row(sizing, sizing.points[sizing.replicas]),
            }
        return row

    def save(self, path: Path) -> None:
        """Write all numbers to a JSON file."""
        record = {
            "workload": self.workload,
            "rate": self.rate,
            "target": self.target,
            "router": self.router,
            "cheapest": self.cheapest,
            "rows": self.rows(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_finite(record), indent=1), encoding="utf-8")


def plan(
    options: Sequence[Option],
    schedulers: Mapping[str, Scheduler],
    workload: Workload,
    router: Router,
    target: float = 0.99,
    report: Callable[[str, str, Point], None] | None = None,
    **search: int,
) -> Plan:
    """`size` for every machine and scheduler; `search` goes to it.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    if not options or not schedulers:
        raise ValueError(f"options and schedulers must not be empty, got {len(options)} and {len(schedulers)}")
    sizings = {}
    for option in options:
        for name, scheduler in schedulers.items():
            tell = None if report is None else lambda point, o=option.name, n=name: report(o, n, point)
            sizings[option.name, name] = size(option, scheduler, workload, router, target, report=tell, **search)
    return Plan(workload.name, workload.rate, target, router.name, sizings)


def _point_row(sizing: Sizing, point: Point) -> dict:
    row: dict = {"replicas": point.replicas, "seeds": len(point.attainment)}
    for name in ("attainment", "goodput", "tokens", "utilisation"):
        row[name], row[f"{name}_half_width"] = point.interval(name)
    row["cost_per_million_tokens"] = sizing.cost_per_million_tokens(point.replicas)
    row["marginal_goodput"] = sizing.marginal_goodput(point.replicas)
    return row


def _finite(value: object) -> object:
    """The same with null where JSON has no number."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
