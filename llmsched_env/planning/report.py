"""A fleet plan as text and as an HTML page with curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from llmsched_env.evaluation.text_tables import WIDTH, TextColumn, fitting_tables
from llmsched_env.intervals import mean_interval
from llmsched_env.planning.plan import FleetPlan
from llmsched_env.planning.sizing import Sizing
from llmsched_env.planning.users import MostUsers

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
    lines = [*flags_of(plan), *(f"Warning: {warning}" for warning in warnings_of(plan))]
    return text + "".join(f"{line}\n" for line in lines)


def flags_of(plan: FleetPlan) -> list[str]:
    """The options of `vllm serve` of each answer, and what other values would change."""
    lines = []
    for key, sizing in plan.sizings.items():
        if sizing.flags:
            name, command = f"{', '.join(key)}:", f"vllm serve {' '.join(map(str, sizing.flags))}"
            together = f"{name} {command}"
            lines += [together] if len(together) <= WIDTH else [name, f"  {command}"]
            lines += [f"  SLO met (%) with other {flag.sensitivity}" for flag in sizing.flags if flag.changes]
    return lines


def warnings_of(plan: FleetPlan) -> list[str]:
    """Why the answers are to be doubted, each with the machine and scheduler."""
    return [f"{', '.join(key)}: {each}" for key, sizing in plan.sizings.items() for each in sizing.warnings]


def users_table(found: Mapping[tuple[str, str], MostUsers], replicas: int, workload: str) -> str:
    """The most users by machine and scheduler as a text table, with the numbers that they see."""
    limits = next(iter(found.values())).limits
    rows = []
    for each in found.values():
        point = each.points.get(each.users)
        seen = ["" if point is None else _interval(mean_interval(point.values[name]), 1.0) for name in limits]
        rows.append([str(each.users), f"{each.at_least} to {each.at_most}", *seen])
    heads = ["Users", "95 %\ninterval", *(f"{name}\n(s)" for name in limits)]
    columns = [TextColumn(head, [row[k] for row in rows]) for k, head in enumerate(heads)]
    names = TextColumn("Machine\nScheduler", ["\n".join(key) for key in found], "left")
    asked = " and ".join(f"{name} up to {limit:g} s" for name, limit in limits.items())
    lead = f"Most users in a closed loop of {workload} on {replicas} replica{'s' if replicas > 1 else ''}: {asked}"
    notes = [f"Warning: {', '.join(key)}: {warning}\n" for key, each in found.items() for warning in each.warnings]
    return rich_text(*fitting_tables(lead, names, columns)) + "".join(notes)


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
        flags=flags_of(plan),
        picture=svg_source(curves(plan)) if any(sizing.points for sizing in plan.sizings.values()) else None,
        router=plan.router,
        command=command,
    )


def _lead(plan: FleetPlan) -> str:
    return f"{plan.workload} at {plan.rate:.4g} requests/s; {100 * plan.target:g} % of requests within their targets"
