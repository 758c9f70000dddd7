"""What all pictures have in common: palette, dashes, style, and SVG text as output."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Okabe and Ito's palette, distinct for all common kinds of colour vision, darkened where it was faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#000000", "#7F7F7F")
DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (3, 1)), (0, (6, 1.2, 1.5, 1.2)))
MARKERS = "osD^vP*X"
_STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "svg.hashsalt": "llmsched_env",
}


def line_style(i: int) -> dict[str, Any]:
    """Colour and dash of the i-th of several lines; the dashes alone tell eight apart in black and white."""
    return {"color": COLORS[i % len(COLORS)], "linestyle": DASHES[(i + i // len(COLORS)) % 4]}


@contextmanager
def styled() -> Iterator[None]:
    """Figures are made, drawn on and saved within this."""
    with matplotlib.rc_context(_STYLE):
        yield


def panel_grid(panels: int, columns: int, height: float = 2.9) -> tuple[Figure, list[Axes]]:
    """A figure as wide as a report with axes for so many panels, each `height` inches high."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(11, 0.5 + height * rows), layout=ConstrainedLayoutEngine(h_pad=0.1))
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in grid[panels:]:
        axes.remove()
    return figure, grid[:panels]


def shared_legend(figure: Figure, axes: Axes) -> None:
    """One legend above all panels, of what `axes` shows."""
    handles, labels = axes.get_legend_handles_labels()
    fitting = max(1, 150 // (max(map(len, labels), default=0) + 8))  # columns that the width has room for
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6, fitting))


def svg_text(figure: Figure) -> str:
    """The figure as SVG, the same text for the same figure."""
    output = io.StringIO()
    figure.savefig(output, format="svg", metadata={"Date": None, "Creator": None})
    return output.getvalue()
