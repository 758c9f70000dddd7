"""Building blocks of all reports: style of figures, SVG, tables as text, and HTML pages without external files."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich.console import Console, RenderableType

from llmsched_env.evaluation.text_tables import WIDTH
from llmsched_env.files import write_text

# Okabe and Ito's palette, distinct for all common kinds of colour vision, darkened where it was faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#000000", "#7F7F7F")
DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (3, 1)), (0, (6, 1.2, 1.5, 1.2)))
MARKERS = "osD^vP*X"
_STYLE: dict[Any, Any] = {
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


class Opening(NamedTuple):
    """A section that a page begins with: a figure, a table, or both.

    Attributes:
        id: of the section, for links.
        heading: its title.
        text: what it shows.
        picture: source of the image, see `svg_source`; "": none.
        header: of the table.
        rows: of the table; empty: none.
    """

    id: str
    heading: str
    text: str
    picture: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def line_style(i: int) -> dict[str, Any]:
    """Colour and dash of the i-th of several lines; eight of them can be distinguished in black and white."""
    return {"color": COLORS[i % len(COLORS)], "linestyle": DASHES[(i + i // len(COLORS)) % 4]}


@contextmanager
def styled() -> Iterator[None]:
    """The context in which figures are made, drawn on and saved."""
    with matplotlib.rc_context(_STYLE):
        yield


def panel_grid(panels: int, columns: int, height: float = 2.9) -> tuple[Figure, list[Axes]]:
    """A figure of the width of a report, and axes for `panels` panels, each `height` inches high."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(11, 0.5 + height * rows), layout=ConstrainedLayoutEngine(h_pad=0.1))
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in grid[panels:]:
        axes.remove()
    return figure, grid[:panels]


def shared_legend(figure: Figure, axes: Axes) -> None:
    """One legend above all panels, with the labels of `axes`."""
    handles, labels = axes.get_legend_handles_labels()
    fitting = max(1, 150 // (max(map(len, labels), default=0) + 8))  # columns that fit the width
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6, fitting))


def svg_text(figure: Figure) -> str:
    """The figure as SVG; equal figures give equal text."""
    output = io.StringIO()
    figure.savefig(output, format="svg", metadata={"Date": None, "Creator": None})
    return output.getvalue()


def svg_source(svg: str) -> str:
    """An SVG picture as the `src` of an image, so that it is inside the page."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def rich_text(*renderables: RenderableType, width: int = WIDTH, color: bool = False) -> str:
    """What rich prints on a terminal of `width` columns, as text; in colour with ANSI codes."""
    output = io.StringIO()
    console = Console(
        file=output,
        width=width,
        markup=False,
        highlight=False,
        force_terminal=color,
        color_system="standard" if color else None,
    )
    for renderable in renderables:
        console.print(renderable)
    return "".join(f"{line.rstrip()}\n" for line in output.getvalue().splitlines())


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Collection[int] = (0,)
) -> list[str]:
    """The lines of a Markdown table: columns of text to the left, the others to the right."""
    line = "|" + "|".join("---" if k in text_columns else "---:" for k in range(len(header))) + "|"
    head, *body = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
    return [head, line, *body]


def write_page(path: str | Path, template: str, package: str = __package__, **values: Any) -> Path:
    """Render a template to an HTML file that needs no other file, so it can be mailed or archived.

    Args:
        path: the HTML file.
        template: name of a template in the folder `templates` of `package`; it may extend `base.html.j2`.
        package: the package of the template.
        values: values for the template.

    Returns:
        `path`.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__package__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = Path(path)
    write_text(path, environment.get_template(template).render(**values))
    return path
