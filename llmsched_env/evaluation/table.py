"""A comparison as tables: one row a scheduler, each number with its 95 % interval over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rich.console import RenderableType
from rich.text import Text

from llmsched_env.evaluation.cases import load_text
from llmsched_env.evaluation.comparison import Comparison, ComparisonCell
from llmsched_env.evaluation.rendering import rich_text
from llmsched_env.evaluation.text_tables import TextColumn, fitting_tables
from llmsched_env.intervals import paired_interval
from llmsched_env.validation import check_choice

_MEMORY_CAPTION = (
    "means over seeds; tokens found in the prefix cache count as hits at every admission of their request, also after "
    "a preemption"
)


class MetricColumn(NamedTuple):
    """A metric as it is printed.

    Attributes:
        metric: its name in `ComparisonCell.metrics`.
        title: its name in tables.
        unit: of the printed number.
        scale: from the metric to the printed number.
        larger_is_better: the direction.
    """

    metric: str
    title: str
    unit: str
    scale: float
    larger_is_better: bool


COLUMNS = (
    MetricColumn("request_throughput", "Requests", "1/s", 1, True),
    MetricColumn("output_throughput", "Output", "tokens/s", 1, True),
    MetricColumn("mean_ttft_ms", "TTFT mean", "s", 1e-3, False),
    MetricColumn("median_ttft_ms", "TTFT median", "s", 1e-3, False),
    MetricColumn("p99_ttft_ms", "TTFT p99", "s", 1e-3, False),
    MetricColumn("mean_tpot_ms", "TPOT mean", "ms", 1, False),
    MetricColumn("mean_e2el_ms", "E2E mean", "s", 1e-3, False),
    MetricColumn("e2el_over_bound", "E2E mean", "× bound", 1, False),
    MetricColumn("p99_e2el_ms", "E2E p99", "s", 1e-3, False),
    MetricColumn("slo_attainment", "SLO met", "%", 100, True),
    MetricColumn("request_goodput", "Goodput", "1/s", 1, True),
)
MEMORY_COLUMNS = (
    MetricColumn("mean_kv_usage", "KV in use, mean", "%", 100, True),
    MetricColumn("max_kv_usage", "KV in use, most", "%", 100, True),
    MetricColumn("preemption_rate", "Preemptions", "per request", 1, False),
    MetricColumn("recomputed_tokens", "Lost to them", "tokens", 1, False),
    MetricColumn("prefix_hit_rate", "Prefix hits", "% of prefill", 100, True),
    MetricColumn("rejected", "Rejected", "requests", 1, False),
    MetricColumn("abandoned", "Abandoned", "requests", 1, False),
)
"""Printed if KV memory is limited or prefixes are reused."""


@dataclass(frozen=True, slots=True)
class PrintedNumber:
    """A number as text.

    Attributes:
        value: the number.
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
class SchedulerRow:
    """The row of one scheduler.

    Attributes:
        scheduler: its name.
        numbers: in the order of the columns.
        stability: the verdict; "" if the table does not show it.
        growth: of the backlog, and the number of runs that stalled.
    """

    scheduler: str
    numbers: tuple[PrintedNumber, ...]
    stability: str = ""
    growth: str = ""


@dataclass(frozen=True, slots=True)
class ComparisonTable:
    """A table of one workload at one load: absolute numbers, or differences to a reference scheduler."""

    title: str
    caption: str
    rows: tuple[SchedulerRow, ...]
    columns: tuple[MetricColumn, ...] = COLUMNS
    has_stability: bool = True


def comparison_tables(comparison: Comparison, reference: str | None = None) -> list[ComparisonTable]:
    """All tables of a comparison.

    Args:
        comparison: the numbers.
        reference: scheduler to which differences are shown, paired by seed; None: no differences.

    Raises:
        ValueError: if `reference` is not in the comparison.
    """
    if reference is not None:
        check_choice("reference", reference, comparison.schedulers)
    tables = []
    for workload, load, cells in comparison.by_workload_and_load():
        title_of = f"{workload}, load {load_text(load)}"
        tables.append(ComparisonTable(title_of, _caption(cells[0]), tuple(_absolute(cell) for cell in cells)))
        if reference is not None and len(cells) > 1:
            base = next(cell for cell in cells if cell.scheduler == reference)
            differences = tuple(_difference(cell, base) for cell in cells if cell is not base)
            title = f"{title_of}: difference to {reference}, on the same requests"
            tables.append(ComparisonTable(title, _difference_caption(base), differences, has_stability=False))
        if comparison.engine.kv_blocks is not None or comparison.engine.prefix_caching:
            rows = tuple(SchedulerRow(cell.scheduler, _numbers(cell, MEMORY_COLUMNS)) for cell in cells)
            tables.append(
                ComparisonTable(f"{title_of}: KV memory", _MEMORY_CAPTION, rows, MEMORY_COLUMNS, has_stability=False)
            )
    return tables


def text_table(comparison: Comparison, reference: str | None = None, color: bool = False) -> str:
    """All tables of a comparison as text, at most 100 columns wide; see `comparison_tables`."""
    parts = [(*_renderables(table), "") for table in comparison_tables(comparison, reference)]
    return rich_text(*(part for table in parts for part in table), color=color)


def format_interval(value: float, half_width: float) -> tuple[str, str]:
    """Value and half width as text: two significant digits of the half width, or four of a value without one."""
    if math.isnan(value):
        return "–", ""
    if math.isnan(half_width):
        return _fixed(value, _decimals(value, 4)), ""
    decimals = _decimals(half_width, 2) if half_width > 0 else _decimals(value, 4)
    decimals = min(decimals, _decimals(value, 5))
    return _fixed(value, decimals), _fixed(half_width, decimals)


def _numbers(cell: ComparisonCell, columns: tuple[MetricColumn, ...]) -> tuple[PrintedNumber, ...]:
    intervals = [(column.scale, *cell.interval(column.metric)) for column in columns]
    return tuple(
        PrintedNumber(*format_interval(scale * mean, scale * half_width)) for scale, mean, half_width in intervals
    )


def _absolute(cell: ComparisonCell) -> SchedulerRow:
    growth, width = format_interval(100 * cell.stability.slope, 100 * cell.stability.half_width)
    growth = f"{growth} ±{width} %" if width else growth
    stalls = f", {cell.stalls} of {len(cell.seeds)} stalled" if cell.stalls else ""
    return SchedulerRow(cell.scheduler, _numbers(cell, COLUMNS), cell.stability.verdict, growth + stalls)


def _difference(cell: ComparisonCell, reference: ComparisonCell) -> SchedulerRow:
    numbers = []
    for column in COLUMNS:
        mean, half_width = paired_interval(cell.metrics[column.metric], reference.metrics[column.metric])
        value, width = format_interval(column.scale * mean, column.scale * half_width)
        better = (mean > 0) == column.larger_is_better
        verdict: Literal["better", "worse", ""] = ("better" if better else "worse") if abs(mean) > half_width else ""
        numbers.append(PrintedNumber(f"+{value}" if mean > 0 else value, width, verdict))
    return SchedulerRow(cell.scheduler, tuple(numbers))


def _caption(cell: ComparisonCell) -> str:
    share = f" ({cell.rate / cell.capacity:.3g} of it)" if cell.capacity > 0 and not math.isnan(cell.rate) else ""
    capacity = "unknown" if math.isnan(cell.capacity) else f"{cell.capacity:.4g} requests/s"
    seeds = len(cell.seeds)
    sample = "one trace, so no intervals" if seeds == 1 else f"mean ± 95 % half width over {seeds} seeds"
    bound = cell.interval("mean_e2el_bound_ms")[0] / 1e3
    least = "" if math.isnan(bound) else f"; mean E2E at least {bound:.4g} s"
    offered = "users in a closed loop" if math.isnan(cell.rate) else f"offered {cell.rate:.4g} requests/s"
    return f"{offered}, reference capacity {capacity}{share}{least}; {sample}"


def _difference_caption(cell: ComparisonCell) -> str:
    if len(cell.seeds) == 1:
        return "one trace, so no intervals"
    return (
        "✓ better, ✗ worse: the 95 % interval of the paired difference excludes 0; no mark: no significant difference"
    )


def _renderables(content: ComparisonTable) -> list[RenderableType]:
    names = TextColumn("Scheduler", [row.scheduler for row in content.rows], "left")
    columns = []
    for k, column in enumerate(content.columns):
        numbers = [row.numbers[k] for row in content.rows]
        cells = [_stacked(f"{n.value}{n.mark}", n.half_width and f"±{n.half_width}") for n in numbers]
        columns.append(TextColumn("\n".join([*column.title.rsplit(" ", 1), column.unit]), cells))
    if content.has_stability:
        verdicts = [_stacked(row.stability, row.growth) for row in content.rows]
        columns.append(TextColumn("Stable\nbacklog growth", verdicts, "left"))
    return fitting_tables(content.title, names, columns, content.caption)


def _stacked(first: str, second: str) -> Text:
    """Two lines: values and their half widths on one line would be too wide."""
    return Text.assemble(first, (f"\n{second}" if second else "", "dim"))


def _decimals(value: float, digits: int) -> int:
    if value == 0 or not math.isfinite(value):
        return 0
    return min(max(digits - 1 - math.floor(math.log10(abs(value))), 0), 4)


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text
