"""A comparison as a table: a row a scheduler, each number with its 95 % interval over seeds."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmsched_env.evaluation.cell import Cell, load_text
from llmsched_env.evaluation.compare import Comparison
from llmsched_env.intervals import paired_interval
from llmsched_env.validation import check_choice

_MEMORY_CAPTION = (
    "means over seeds; tokens found in the prefix cache count as hits whenever their request is admitted, after a "
    "preemption too"
)
_WIDTH = 160  # columns of numbers and the verdict; the longest name comes on top


class Column(NamedTuple):
    """A metric as it is printed."""

    metric: str
    title: str
    unit: str
    scale: float
    larger_is_better: bool


COLUMNS = (
    Column("request_throughput", "Requests", "1/s", 1, True),
    Column("output_throughput", "Output", "tokens/s", 1, True),
    Column("mean_ttft_ms", "TTFT mean", "s", 1e-3, False),
    Column("median_ttft_ms", "TTFT median", "s", 1e-3, False),
    Column("p99_ttft_ms", "TTFT p99", "s", 1e-3, False),
    Column("mean_tpot_ms", "TPOT mean", "ms", 1, False),
    Column("mean_e2el_ms", "E2E mean", "s", 1e-3, False),
    Column("e2el_over_bound", "E2E mean", "× bound", 1, False),
    Column("p99_e2el_ms", "E2E p99", "s", 1e-3, False),
    Column("slo_attainment", "SLO met", "%", 100, True),
    Column("request_goodput", "Goodput", "1/s", 1, True),
)
MEMORY_COLUMNS = (
    Column("mean_kv_usage", "KV in use, mean", "%", 100, True),
    Column("max_kv_usage", "KV in use, most", "%", 100, True),
    Column("preemption_rate", "Preemptions", "per request", 1, False),
    Column("recomputed_tokens", "Lost to them", "tokens", 1, False),
    Column("prefix_hit_rate", "Prefix hits", "% of prefill", 100, True),
    Column("rejected", "Rejected", "requests", 1, False),
    Column("abandoned", "Abandoned", "requests", 1, False),
)
"""Printed where memory is limited, reused or given up."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as printed.

    Attributes:
        value: its value.
        half_width: of its 95 % interval; "" for one trace.
        verdict: of a difference to the reference: "better" or "worse" if its interval excludes 0, else "".
    """

    value: str
    half_width: str = ""
    verdict: Literal["better", "worse", ""] = ""

    @property
    def mark(self) -> str:
        """The verdict as one character."""
        return {"better": "✓", "worse": "✗", "": ""}[self.verdict]


@dataclass(frozen=True, slots=True)
class Row:
    """One scheduler: its numbers in the order of the columns, and how stable it is ("" where that is not shown)."""

    scheduler: str
    numbers: tuple[Number, ...]
    stability: str = ""
    growth: str = ""  # of the backlog, and runs that stalled


@dataclass(frozen=True, slots=True)
class Block:
    """One table: a workload at a load, the absolute numbers or the differences to a reference scheduler."""

    title: str
    caption: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...] = COLUMNS
    has_stability: bool = True


def blocks(comparison: Comparison, reference: str | None = None) -> list[Block]:
    """The tables that are printed and reported.

    Args:
        comparison: the numbers.
        reference: scheduler that all others are compared with, seed by seed; None: no differences.

    Raises:
        ValueError: if `reference` is not in the comparison.
    """
    if reference is not None:
        check_choice("reference", reference, comparison.schedulers)
    tables = []
    for workload, load, cells in comparison.blocks():
        title_of = f"{workload}, load {load_text(load)}"
        tables.append(Block(title_of, _caption(cells[0]), tuple(_absolute(cell) for cell in cells)))
        if reference is not None and len(cells) > 1:
            base = next(cell for cell in cells if cell.scheduler == reference)
            differences = tuple(_difference(cell, base) for cell in cells if cell is not base)
            title = f"{title_of}: difference to {reference}, on the same requests"
            tables.append(Block(title, _difference_caption(base), differences, has_stability=False))
        if comparison.engine.kv_blocks is not None or comparison.engine.prefix_caching:
            rows = tuple(Row(cell.scheduler, _numbers(cell, MEMORY_COLUMNS)) for cell in cells)
            tables.append(Block(f"{title_of}: KV memory", _MEMORY_CAPTION, rows, MEMORY_COLUMNS, has_stability=False))
    return tables


def text_table(comparison: Comparison, reference: str | None = None, color: bool = False) -> str:
    """The whole comparison as text, some 160 columns wide, with tables of differences to `reference`."""
    output = io.StringIO()
    width = _WIDTH + max(map(len, comparison.schedulers), default=0)
    console = Console(
        file=output, width=width, markup=False, force_terminal=color, color_system="standard" if color else None
    )
    for block in blocks(comparison, reference):
        console.print(_rich_table(block), "")
    return output.getvalue()


def format_interval(value: float, half_width: float) -> tuple[str, str]:
    """Value and half width as text: two significant digits of the half width, four of a value without one."""
    if math.isnan(value):
        return "–", ""
    if math.isnan(half_width):
        return _fixed(value, _decimals(value, 4)), ""
    decimals = _decimals(half_width, 2) if half_width > 0 else _decimals(value, 4)
    decimals = min(decimals, _decimals(value, 5))
    return _fixed(value, decimals), _fixed(half_width, decimals)


def _numbers(cell: Cell, columns: tuple[Column, ...]) -> tuple[Number, ...]:
    intervals = [(column.scale, *cell.interval(column.metric)) for column in columns]
    return tuple(Number(*format_interval(scale * mean, scale * half_width)) for scale, mean, half_width in intervals)


def _absolute(cell: Cell) -> Row:
    growth, width = format_interval(100 * cell.stability.slope, 100 * cell.stability.half_width)
    growth = f"{growth} ±{width} %" if width else growth
    stalls = f", {cell.stalls} of {len(cell.seeds)} stalled" if cell.stalls else ""
    return Row(cell.scheduler, _numbers(cell, COLUMNS), cell.stability.verdict, growth + stalls)


def _difference(cell: Cell, reference: Cell) -> Row:
    numbers = []
    for column in COLUMNS:
        mean, half_width = paired_interval(cell.metrics[column.metric], reference.metrics[column.metric])
        value, width = format_interval(column.scale * mean, column.scale * half_width)
        better = (mean > 0) == column.larger_is_better
        verdict: Literal["better", "worse", ""] = ("better" if better else "worse") if abs(mean) > half_width else ""
        numbers.append(Number(f"+{value}" if mean > 0 else value, width, verdict))
    return Row(cell.scheduler, tuple(numbers))


def _caption(cell: Cell) -> str:
    share = f" ({cell.rate / cell.capacity:.3g} of it)" if cell.capacity > 0 else ""
    capacity = "unknown" if math.isnan(cell.capacity) else f"{cell.capacity:.4g} requests/s"
    seeds = len(cell.seeds)
    sample = "one trace, so no intervals" if seeds == 1 else f"mean ± 95 % half width over {seeds} seeds"
    bound = cell.interval("mean_e2el_bound_ms")[0] / 1e3
    least = "" if math.isnan(bound) else f"; mean E2E at least {bound:.4g} s"
    return f"offered {cell.rate:.4g} requests/s, reference capacity {capacity}{share}{least}; {sample}"


def _difference_caption(cell: Cell) -> str:
    if len(cell.seeds) == 1:
        return "one trace, so no intervals"
    return "✓ better, ✗ worse: the 95 % interval of the paired difference excludes 0; no mark: not told apart"


def _rich_table(block: Block) -> Table:
    table = Table(title=block.title, caption=block.caption, title_style="bold")
    table.title_justify = table.caption_justify = "left"
    table.add_column("Scheduler", no_wrap=True)
    for column in block.columns:
        table.add_column(f"{column.title}\n{column.unit}", justify="right", no_wrap=True)
    if block.has_stability:
        table.add_column("Stable\nbacklog growth", no_wrap=True)
    for row in block.rows:
        numbers = [_stacked(f"{n.value}{n.mark}", n.half_width and f"±{n.half_width}") for n in row.numbers]
        stability = [_stacked(row.stability, row.growth)] if block.has_stability else []
        table.add_row(row.scheduler, *numbers, *stability)
    return table


def _stacked(first: str, second: str) -> Text:
    """Two lines: with values and half widths side by side, ten numbers would be too wide."""
    return Text.assemble(first, (f"\n{second}" if second else "", "dim"))


def _decimals(value: float, digits: int) -> int:
    if value == 0 or not math.isfinite(value):
        return 0
    return min(max(digits - 1 - math.floor(math.log10(abs(value))), 0), 4)


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text
