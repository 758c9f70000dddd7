"""What the report holds beside the single engines of the suite: a title, tables and claims each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmsched_env.evaluation.benchmark import judged
from llmsched_env.evaluation.benchmark.azure import JudgedTrace
from llmsched_env.evaluation.benchmark.judged import JudgedCell, Verdict, all_verdicts
from llmsched_env.evaluation.benchmark.statistics import RESAMPLES
from llmsched_env.evaluation.benchmark.tables import (
    Table,
    cluster_table,
    objective_tables,
    trace_table,
)
from llmsched_env.evaluation.objective import OBJECTIVES


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report.

    Attributes:
        id: of its anchor in the page.
        title: its heading.
        tables: at least one.
        claims: (title of the objective, verdict) each.
    """

    id: str
    title: str
    tables: tuple[Table, ...]
    claims: tuple[tuple[str, Verdict], ...]


def trace_sections(traces: Sequence[JudgedTrace]) -> list[Section]:
    """The Azure slices; none without them."""
    if not traces:
        return []
    own = [trace for trace in traces if trace.objective == "slo_attainment"]
    claims = [
        (OBJECTIVES["slo_attainment"].title, _trace_verdict(name, [trace for trace in own if trace.judged == name]))
        for name in dict.fromkeys(trace.judged for trace in own)
    ]
    return [Section("traces", "Azure traces", (trace_table(traces),), tuple(claims))]


def cluster_sections(cells: Sequence[JudgedCell], resamples: int = RESAMPLES) -> list[Section]:
    """The clusters, with the claims of single engines; none without them."""
    if not cells:
        return []
    tables = tuple(map(cluster_table, judged.by_objective(cells).values()))
    return [Section("clusters", "Clusters", tables, _claims("Clusters", cells, resamples))]


def random_sections(cells: Sequence[JudgedCell], resamples: int = RESAMPLES) -> list[Section]:
    """Sites drawn at random, with the claims and tables of those of the suite; none without them."""
    if not cells:
        return []
    tables = [
        replace(table, title=f"Random sites, {table.title}")
        for own in judged.by_objective(cells).values()
        for table in objective_tables(own, resamples)
    ]
    return [Section("random", "Random sites", tuple(tables), _claims("Random sites", cells, resamples))]


def _claims(what: str, cells: Sequence[JudgedCell], resamples: int) -> tuple[tuple[str, Verdict], ...]:
    return tuple(
        (OBJECTIVES[name].title, replace(verdict, claim=f"{what}: {verdict.claim}"))
        for name, own in judged.by_objective(cells).items()
        for verdict in all_verdicts(own, resamples)
    )


def _trace_verdict(name: str, own: Sequence[JudgedTrace]) -> Verdict:
    open_ones = [t for t in own if t.tuned < judged.HEADROOM]
    wins = sum(t.difference.low > 0 for t in open_ones)
    worst = min(own, key=lambda t: t.difference.mean)
    lost = sum(t.difference.high < 0 for t in own)
    who = "" if name == judged.POLICY else f"{name}: "
    return Verdict(
        f"{who}Azure traces: interval above 0 on at least 80 % of those with headroom, below 0 on none, nowhere worse "
        "than by 0.002",
        f"{wins} of {len(open_ones)}, {lost} below, worst {worst.difference.mean:+.4f} ({worst.name})",
        wins >= 0.8 * len(open_ones) and not lost and worst.difference.mean >= -0.002,
    )
