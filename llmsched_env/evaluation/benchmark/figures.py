"""The figures of the benchmark: differences by cell, aggregates over cells, and distributions of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from llmsched_env.evaluation.benchmark import results
from llmsched_env.evaluation.benchmark.results import CellResult, RoleComparison
from llmsched_env.evaluation.rendering import COLORS, line_style
from llmsched_env.objectives import OBJECTIVES

_COLOR = {"win": COLORS[0], "tie": "#8a8a8a", "loss": COLORS[1]}
_WORD = {"win": "better", "tie": "no significant difference", "loss": "worse"}
_LINEAR = 0.1  # % around 0 in which the axis of differences is linear
_PLAIN = FuncFormatter(lambda value, _: f"{value:+g}" if value else "0")
_POINTS = 200


def headline(cells: Mapping[str, Sequence[CellResult]], found: Mapping[str, Mapping[str, RoleComparison]]) -> Figure:
    """For each objective the sorted differences of all cells, and the share saved against each role."""
    figure = Figure(figsize=(11, 0.3 + 3.6 * len(cells)), layout=ConstrainedLayoutEngine(h_pad=0.1))
    grid = figure.subplots(len(cells), 2, squeeze=False, width_ratios=(2, 1))
    for (name, own), (left, right) in zip(cells.items(), grid, strict=True):
        _sorted_differences(left, own)
        _saved(right, name, found[name])
    return figure


def forest(cells: Sequence[CellResult]) -> Figure:
    """The difference of every cell, with its name; all cells of one objective."""
    ordered = sorted(cells, key=lambda cell: cell.difference.mean)
    figure = Figure(figsize=(11, 1.2 + 0.19 * len(cells)), layout=ConstrainedLayoutEngine())
    axes = figure.subplots()
    _points(axes, ordered, horizontal=True)
    axes.set_yticks(range(len(ordered)), [cell.name + (" ○" if cell.held_out else "") for cell in ordered], fontsize=7)
    axes.set_ylim(-1, len(ordered))
    axes.set_xlabel(_axis_text(cells[0].objective))
    axes.axvline(0, color="#444444", linewidth=0.8)
    _scale(axes.set_xscale, axes.xaxis)
    axes.legend(loc="lower right")
    return figure


def profile(cells: Sequence[CellResult]) -> Figure:
    """Distribution of the cost over all runs in the cells with headroom; all cells of one objective."""
    chosen = [cell for cell in cells if cell.has_headroom] or list(cells)
    objective = chosen[0].objective
    rising = OBJECTIVES[objective].larger_is_better
    figure = Figure(figsize=(11, 3.4), layout=ConstrainedLayoutEngine())
    axes = figure.subplots()
    for k, role in enumerate((results.POLICY, results.TUNED, results.INDEX, results.STATIC)):
        share = [cell.costs(role) if rising else cell.runs[role] / cell.runs[results.TUNED].mean() for cell in chosen]
        values = np.sort(np.concatenate(share))
        at = np.unique(np.linspace(0, len(values) - 1, _POINTS).round().astype(int))
        axes.plot(values[at], (at + 1) / len(values), label=role, **line_style(k))
    axes.set(ylabel="Share of runs", ylim=(0, 1.02))
    if rising:
        axes.set(xlabel="Requests that miss a target, at most")
        axes.set_xscale("symlog", linthresh=0.01)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlim(0, 1)
    else:
        axes.set(xlabel=f"{OBJECTIVES[objective].title} over the mean of the best tuned baseline of the cell, at most")
        axes.set_xlim(0, 3)
    axes.legend(loc="lower right")
    return figure


def _sorted_differences(axes: Axes, cells: Sequence[CellResult]) -> None:
    ordered = sorted(cells, key=lambda cell: cell.difference.mean)
    _points(axes, ordered, horizontal=False)
    goal = OBJECTIVES[cells[0].objective]
    axes.axhline(0, color="#444444", linewidth=0.8)
    axes.set(xlabel=f"{len(cells)} cells, sorted; hollow: on sites not trained on", ylabel=_axis_text(goal.name))
    axes.set_title(f"{goal.title}: policy against the best baseline tuned for each cell")
    axes.set_xticks([])
    _scale(axes.set_yscale, axes.yaxis)
    axes.legend(loc="lower right")


def _points(axes: Axes, ordered: Sequence[CellResult], horizontal: bool) -> None:
    counts = {v: sum(cell.difference.verdict == v for cell in ordered) for v in _COLOR}
    labelled = set()
    for k, cell in enumerate(ordered):
        d, verdict = cell.difference, cell.difference.verdict
        middle = 100 * d.mean
        span = 100 * np.maximum([[d.mean - d.low], [d.high - d.mean]], 0)  # a percentile interval may exclude the mean
        label = None if verdict in labelled else f"{_WORD[verdict]} ({counts[verdict]})"
        labelled.add(verdict)
        style: dict[str, Any] = {
            "color": _COLOR[verdict],
            "marker": "o",
            "markersize": 4,
            "markerfacecolor": "white" if cell.held_out else _COLOR[verdict],
            "elinewidth": 1.1,
            "linestyle": "none",
            "label": label,
        }
        if horizontal:
            axes.errorbar(middle, k, xerr=span, **style)
        else:
            axes.errorbar(k, middle, yerr=span, **style)


def _saved(axes: Axes, objective: str, found: Mapping[str, RoleComparison]) -> None:
    roles = list(found)[::-1]
    for k, role in enumerate(roles):
        saved, better = found[role].reduction, found[role].improvement
        span = [[max(0.0, saved.value - saved.low)], [max(0.0, saved.high - saved.value)]]
        axes.errorbar(saved.value, k, xerr=span, color=COLORS[0], marker="D", markersize=5, linestyle="none")
        text = f"{saved.value:.1%}, better run {better.value:.2f}"
        axes.annotate(text, (saved.value, k), (0, 8), textcoords="offset points", ha="center", fontsize=8)
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.set_yticks(range(len(roles)), roles)
    axes.set_ylim(-0.6, len(roles) - 0.3)
    axes.margins(x=0.4)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))  # whole percents
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    what = "misses" if OBJECTIVES[objective].larger_is_better else "latency"
    axes.set_title(f"Share of {what} saved against")
    axes.set_xlabel("interquartile mean over cells, 95 % interval")


def _scale(set_scale: Callable[..., object], axis: Axis) -> None:
    set_scale("symlog", linthresh=_LINEAR)
    axis.set_major_formatter(_PLAIN)


def _axis_text(objective: str) -> str:
    unit = "points of %" if OBJECTIVES[objective].larger_is_better else "% of baseline"
    return f"{unit}, above 0 is better"
