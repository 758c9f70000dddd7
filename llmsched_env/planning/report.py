"""A fleet plan as text and as an HTML page with curves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from llmsched_env.evaluation.rendering import (
    MARKERS,
    line_style,
    panel_grid,
    rich_text,
    shared_legend,
    styled,
    svg_source,
    svg_text,
    write_page,
)
from llmsched_env.evaluation.table import format_interval
from llmsched_env.evaluation.text_tables import TextColumn, fitting_tables
from llmsched_env.planning.plan import FleetPlan
from llmsched_env.planning.sizing import Sizing

COLUMNS = (
    "Machine",
    "Scheduler",
    "Replicas",
    "Theory's guess",
    "Cost per hour",
    "Per million tokens",
    "SLO met (%)",
    "Goodput (1/s)",
    "Utilisation (%)",
    "One more adds (1/s)",
)

_HEADERS = {name: "\n".join(name.rsplit(" ", 1)) for name in COLUMNS}  # on two lines in a terminal


def table_rows(plan: FleetPlan) -> list[list[str]]:
    """One row of text under `COLUMNS` for each machine and scheduler."""
    return [[*key, *_cells(sizing)] for key, sizing in plan.sizings.items()]


def _cells(sizing: Sizing) -> list[str]:
    if sizing.replicas is None:
        never = f"never: {sizing.demand.never}"
        return [f"over {max(sizing.points)}" if sizing.points else never, str(sizing.first_guess), *[""] * 6]
    n, point = sizing.replicas, sizing.points[sizing.replicas]
    unsure = f" (or {sizing.at_least})" if sizing.at_least != n else ""
    shares = [
        _interval(point.interval(name), scale)
        for name, scale in (("attainment", 100), ("goodput", 1), ("utilisation", 100))
    ]
    return [
        f"{n}{unsure}",
        str(sizing.first_guess),
        f"{n * sizing.option.price:.2f}",
        f"{sizing.cost_per_million_tokens(n):.3f}",
        *shares,
        "" if math.isnan(sizing.marginal_goodput(n)) else f"{sizing.marginal_goodput(n):.3f}",
    ]


def _interval(interval: tuple[float, float], scale: float) -> str:
    value, half = format_interval(scale * interval[0], scale * interval[1])
    return f"{value} ± {half}" if half else value


def text_table(plan: FleetPlan) -> str:
    """The plan as a text table."""
    rows = table_rows(plan)
    names = TextColumn("\n".join(COLUMNS[:2]), ["\n".join(row[:2]) for row in rows], "left")
    columns = [TextColumn(_HEADERS[name], [row[k] for row in rows]) for k, name in enumerate(COLUMNS)]
    text = rich_text(*fitting_tables(_lead(plan), names, columns[2:]))
    return text + "".join(f"Warning: {warning}\n" for warning in warnings_of(plan))


def warnings_of(plan: FleetPlan) -> list[str]:
    """Why the answers are to be doubted, each with the machine and scheduler."""
    return [f"{', '.join(key)}: {each}" for key, sizing in plan.sizings.items() for each in sizing.warnings]


def curves(plan: FleetPlan) -> str:
    """SLO attainment, goodput and cost per million tokens against replicas, as SVG text."""
    with styled():
        figure, (attainment, goodput, cost) = panel_grid(3, columns=3)
        for k, ((machine, scheduler), sizing) in enumerate(plan.sizings.items()):
            if not sizing.points:
                continue
            numbers = sorted(sizing.points)
            style = {**line_style(k), "marker": MARKERS[k % len(MARKERS)], "label": f"{machine}, {scheduler}"}
            for axes, name, scale in ((attainment, "attainment", 100), (goodput, "goodput", 1)):
                intervals = np.array([sizing.points[n].interval(name) for n in numbers]) * scale
                axes.errorbar(numbers, intervals[:, 0], np.nan_to_num(intervals[:, 1]), capsize=2, **style)
            cost.plot(numbers, [sizing.cost_per_million_tokens(n) for n in numbers], **style)
        attainment.axhline(100 * plan.target, color="#888888", linewidth=0.8)
        for axes, title in ((attainment, "SLO met (%)"), (goodput, "Goodput (1/s)"), (cost, "Per million tokens")):
            axes.set(xlabel="Replicas", ylabel=title, ylim=(0, None), xlim=(0, None))
        shared_legend(figure, attainment)
        return svg_text(figure)


def write_plan(plan: FleetPlan, path: Path, command: str) -> Path:
    """Write the page; returns `path`."""
    best = plan.cheapest
    return write_page(
        path,
        "plan.html.j2",
        title="Capacity plan",
        lead=_lead(plan),
        answer=None if best is None else (*best, plan.sizings[best].replicas),
        columns=COLUMNS,
        rows=table_rows(plan),
        warnings=warnings_of(plan),
        picture=svg_source(curves(plan)) if any(sizing.points for sizing in plan.sizings.values()) else None,
        router=plan.router,
        command=command,
    )


def _lead(plan: FleetPlan) -> str:
    return f"{plan.workload} at {plan.rate:.4g} requests/s; {100 * plan.target:g} % of requests within their targets"
