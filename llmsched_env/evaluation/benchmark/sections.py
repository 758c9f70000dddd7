"""The sections of the report on traces, clusters and random sites, with their tables and claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmsched_env.evaluation.benchmark import results
from llmsched_env.evaluation.benchmark.azure_traces import TraceResult
from llmsched_env.evaluation.benchmark.results import CellResult, Claim, all_claims
from llmsched_env.evaluation.benchmark.statistics import RESAMPLES
from llmsched_env.evaluation.benchmark.tables import (
    ReportTable,
    cluster_table,
    objective_tables,
    trace_table,
)
from llmsched_env.objectives import OBJECTIVES


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A section of the report.

    Attributes:
        id: of its anchor in the page.
        title: its heading.
        tables: at least one.
        claims: (title of the objective, claim) each.
    """

    id: str
    title: str
    tables: tuple[ReportTable, ...]
    claims: tuple[tuple[str, Claim], ...]


def trace_sections(traces: Sequence[TraceResult]) -> list[ReportSection]:
    """The section of the Azure traces; none without results."""
    if not traces:
        return []
    own = [trace for trace in traces if trace.objective == "slo_attainment"]
    claims = [
        (OBJECTIVES["slo_attainment"].title, _trace_claim(name, [trace for trace in own if trace.policy_name == name]))
        for name in dict.fromkeys(trace.policy_name for trace in own)
    ]
    return [ReportSection("traces", "Azure traces", (trace_table(traces),), tuple(claims))]


def cluster_sections(cells: Sequence[CellResult], resamples: int = RESAMPLES) -> list[ReportSection]:
    """The section of the clusters, with the claims of single engines; none without results."""
    if not cells:
        return []
    tables = tuple(map(cluster_table, results.by_objective(cells).values()))
    return [ReportSection("clusters", "Clusters", tables, _claims("Clusters", cells, resamples))]


def random_sections(cells: Sequence[CellResult], resamples: int = RESAMPLES) -> list[ReportSection]:
    """The section of the random sites, with the claims and tables of the suite; none without results."""
    if not cells:
        return []
    tables = [
        replace(table, title=f"Random sites, {table.title}")
        for own in results.by_objective(cells).values()
        for table in objective_tables(own, resamples)
    ]
    return [ReportSection("random", "Random sites", tuple(tables), _claims("Random sites", cells, resamples))]


def _claims(what: str, cells: Sequence[CellResult], resamples: int) -> tuple[tuple[str, Claim], ...]:
    return tuple(
        (OBJECTIVES[name].title, replace(claim, text=f"{what}: {claim.text}"))
        for name, own in results.by_objective(cells).items()
        for claim in all_claims(own, resamples)
    )


def _trace_claim(name: str, own: Sequence[TraceResult]) -> Claim:
    open_ones = [t for t in own if t.tuned < results.HEADROOM]
    wins = sum(t.difference.low > 0 for t in open_ones)
    worst = min(own, key=lambda t: t.difference.mean)
    lost = sum(t.difference.high < 0 for t in own)
    who = "" if name == results.POLICY else f"{name}: "
    return Claim(
        f"{who}Azure traces: interval above 0 on at least 80 % of those with headroom, below 0 on none, nowhere worse "
        "than by 0.002",
        f"{wins} of {len(open_ones)}, {lost} below, worst {worst.difference.mean:+.4f} ({worst.name})",
        wins >= 0.8 * len(open_ones) and not lost and worst.difference.mean >= -0.002,
    )
