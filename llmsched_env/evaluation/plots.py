"""The figures of a comparison, each as SVG text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogFormatter

from llmsched_env.evaluation.cases import load_text
from llmsched_env.evaluation.comparison import Comparison, ComparisonCell
from llmsched_env.evaluation.rendering import MARKERS, line_style, panel_grid, shared_legend, styled, svg_text
from llmsched_env.results.metrics import latencies, number_in_system

_POINTS = 400  # of a line: more would be invisible and only make the file larger
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")

_LATENCY_NAMES = {"ttft": "Time to first token (s)", "tpot": "Time per output token (s)", "e2el": "E2E latency (s)"}
_AGAINST_LOAD = (  # metric, title, scale, log y
    ("request_throughput", "Request throughput (1/s)", 1, False),
    ("request_goodput", "Goodput (good requests/s)", 1, False),
    ("slo_attainment", "Requests that met their SLO (%)", 100, False),
    ("mean_ttft_ms", "Mean TTFT (s)", 1e-3, True),
    ("mean_tpot_ms", "Mean TPOT (ms)", 1, True),
    ("mean_e2el_ms", "Mean E2E latency (s)", 1e-3, True),
)


def queue_over_time(comparison: Comparison, workload: str) -> str:
    """Requests in the system over time, one panel a load; the first seed."""

    def draw(axes: Axes, cells: list[ComparisonCell]) -> None:
        last = max(cell.requests.arrival.max(initial=0.0) for cell in cells)
        stop = min(1.5 * last, max(cell.end for cell in cells)) or 1.0
        times = np.linspace(0, stop, _POINTS)
        for cell, style in zip(cells, _styles(comparison), strict=True):
            run = times[times <= cell.end]
            axes.plot(run, number_in_system(cell.requests, run), **style)
        if last < stop:
            axes.axvline(last, color="#888888", linewidth=0.8)
            axes.text(last, 0.03, "arrivals end ", transform=axes.get_xaxis_transform(), ha="right", color="#666666")
        axes.set(title=_title(cells[0]), xlabel="Time (s)", ylabel="Requests in system", xlim=(0, stop))
        axes.set_yscale("symlog", linthresh=10)
        axes.yaxis.set_major_formatter(_PLAIN)
        axes.set_ylim(bottom=0)

    return _panels(comparison, [(cells, draw) for cells in _loads(comparison, workload)], columns=2)


def latency_cdfs(comparison: Comparison, workload: str) -> str:
    """Distributions of TTFT, TPOT and E2E latency, one row of panels a load; the first seed.

    Fractions are of all requests that could have the latency, so a curve ends below 1 if some never reached it.
    """

    def draw(name: str) -> Callable[[Axes, list[ComparisonCell]], None]:
        def draw_one(axes: Axes, cells: list[ComparisonCell]) -> None:
            for cell, style in zip(cells, _styles(comparison), strict=True):
                rows = cell.requests
                reached = np.sort(latencies(rows)[name])
                population = np.count_nonzero(rows.output_tokens > 1) if name == "tpot" else len(rows)
                points = _POINTS if len(reached) else 0
                shown = np.unique(np.linspace(0, len(reached) - 1, points).round().astype(int))
                axes.plot(reached[shown], (shown + 1) / max(population, 1), **style)
            axes.set(title=_title(cells[0]), xlabel=_LATENCY_NAMES[name], ylabel="Fraction of requests", ylim=(0, 1.02))
            _log(axes, "x")

        return draw_one

    panels = [(cells, draw(name)) for cells in _loads(comparison, workload) for name in _LATENCY_NAMES]
    return _panels(comparison, panels, columns=3)


def against_load(comparison: Comparison, workload: str) -> str:
    """Throughput and latency against load, with 95 % intervals over seeds; "" if the workload has no rate."""
    spread = [cells for cells in _loads(comparison, workload) if np.isfinite(cells[0].rate)]
    by_load = sorted(spread, key=lambda cells: cells[0].rate)
    loads = [cells[0].rate / cells[0].capacity for cells in by_load]

    def draw(metric: str, title: str, scale: float, log: bool) -> Callable[[Axes, list[ComparisonCell]], None]:
        def draw_one(axes: Axes, _: list[ComparisonCell]) -> None:
            count = len(comparison.schedulers)
            gap = 0.08 * (max(loads) - min(loads) or 0.2) / count
            for i, style in enumerate(_styles(comparison)):
                mean, half_width = scale * np.array([cells[i].interval(metric) for cells in by_load]).T
                x = np.array(loads) + gap * (i - (count - 1) / 2)  # side by side, so no interval hides another
                half_width = np.nan_to_num(half_width)
                axes.errorbar(
                    x, mean, half_width, **style, marker=MARKERS[i % len(MARKERS)], ms=4, elinewidth=1, capsize=2
                )
            if metric == "request_throughput":
                offered = [cells[0].rate for cells in by_load]
                axes.plot(loads, offered, color="#888888", linewidth=0.8, marker="_", zorder=0)
                axes.annotate(
                    "offered",
                    (loads[-1], offered[-1]),
                    (-6, -1),
                    textcoords="offset points",
                    ha="right",
                    color="#666666",
                )
            axes.set(title=title, xlabel="Load (rate / reference capacity)")
            axes.locator_params(axis="x", nbins=6)
            if log:
                _log(axes, "y")
            else:
                axes.set_ylim(bottom=0)

        return draw_one

    panels = [
        (by_load[0], draw(*picture))
        for picture in _AGAINST_LOAD
        if any(np.isfinite(cell.metrics[picture[0]]).any() for cells in by_load for cell in cells)
    ]
    return _panels(comparison, panels, columns=3) if panels else ""


def _loads(comparison: Comparison, workload: str) -> list[list[ComparisonCell]]:
    return [cells for name, _, cells in comparison.by_workload_and_load() if name == workload]


def _title(cell: ComparisonCell) -> str:
    return f"Load {load_text(cell.load)}"


def _log(axes: Axes, name: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers, and more of them if it spans less than a decade."""
    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_formatter(_PLAIN)
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.3)))


def _styles(comparison: Comparison) -> Iterable[Mapping[str, Any]]:
    """Colour, dash and label of each scheduler."""
    for i, name in enumerate(comparison.schedulers):
        yield {**line_style(i), "label": name}


def _panels(
    comparison: Comparison,
    panels: list[tuple[list[ComparisonCell], Callable[[Axes, list[ComparisonCell]], None]]],
    columns: int,
) -> str:
    """A grid of panels under one legend."""
    with styled():
        figure, grid = panel_grid(len(panels), columns)
        for axes, (cells, draw) in zip(grid, panels, strict=True):
            draw(axes, cells)
        shared_legend(figure, grid[0])
        return svg_text(figure)
