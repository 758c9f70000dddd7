"""The report of the benchmark: one HTML page, tables in Markdown, and the headline figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmsched_env.evaluation.benchmark import figures, results, tables
from llmsched_env.evaluation.benchmark.results import CellResult, RoleComparison, all_claims, compare_with_role
from llmsched_env.evaluation.benchmark.sections import ReportSection
from llmsched_env.evaluation.benchmark.statistics import RESAMPLES
from llmsched_env.evaluation.rendering import styled, svg_source, svg_text, write_page
from llmsched_env.files import write_text
from llmsched_env.objectives import OBJECTIVES

_DPI = 150


def write_benchmark(
    cells: Sequence[CellResult],
    more: Sequence[ReportSection],
    folder: Path,
    facts: Sequence[tuple[str, str]] = (),
    resamples: int = RESAMPLES,
) -> Path:
    """Write `report.html`, `benchmark.md`, `verdicts.txt`, `headline.svg` and `headline.png` to a folder.

    Args:
        cells: single engines, of all objectives.
        more: further sections.
        folder: where to write.
        facts: what was run, as (name, value).
        resamples: of the bootstraps.

    Returns:
        The path of the page.

    Raises:
        ValueError: without cells.
    """
    if not cells:
        raise ValueError("cells is empty; at least one is needed")
    by_objective = results.by_objective(cells)
    claims = [(OBJECTIVES[name].title, v) for name, own in by_objective.items() for v in all_claims(own, resamples)]
    claims += [claim for section in more for claim in section.claims]
    shown = {name: own for name, own in by_objective.items() if name != "p99_ttft"} or by_objective
    found = {name: _against_all(own, resamples) for name, own in shown.items()}
    facts = [*facts, ("Cells", _counts(by_objective)), ("Intervals", f"95 %, {resamples} resamples")]
    parts = {name: tables.objective_tables(own, resamples) for name, own in by_objective.items()}
    claims_table = tables.claim_table(claims)
    with styled():
        head = figures.headline(shown, found)
        svg = svg_text(head)
        write_text(folder / "headline.svg", svg)
        head.savefig(folder / "headline.png", dpi=_DPI)
        sections = [
            {
                "id": name,
                "title": OBJECTIVES[name].title,
                "tables": parts[name],
                "pictures": [svg_source(svg_text(draw(own))) for draw in (figures.profile, figures.forest)],
            }
            for name, own in by_objective.items()
        ]
    lines = [f"{v.found}: {v.text}: {'reached' if v.reached else 'NOT reached'}" for _, v in claims]
    write_text(folder / "verdicts.txt", "\n".join(lines) + "\n")
    section_tables = [table for section in more for table in section.tables]
    everything = [claims_table, *(table for own in parts.values() for table in own), *section_tables]
    text = "\n".join([*(table.markdown() for table in everything), *(f"- {name}: {value}" for name, value in facts)])
    write_text(folder / "benchmark.md", text + "\n")
    return write_page(
        folder / "report.html",
        "benchmark.html.j2",
        title="Learned policies against the best tuned baselines",
        lead=f"{sum(v.reached for _, v in claims)} of {len(claims)} claims reached. Simulated.",
        claims=claims_table,
        headline=svg_source(svg),
        sections=sections,
        more=more,
        settings=tables.setting_table(cells),
        facts=facts,
    )


def _against_all(cells: Sequence[CellResult], resamples: int) -> dict[str, RoleComparison]:
    chosen = [cell for cell in cells if cell.has_headroom] or list(cells)
    return {role: compare_with_role(chosen, role, resamples) for role in results.compared_roles(cells)}


def _counts(by_objective: dict[str, list[CellResult]]) -> str:
    return "; ".join(
        f"{OBJECTIVES[name].title}: {len(own)}, {sum(c.has_headroom for c in own)} with headroom, "
        f"{sum(c.held_out for c in own)} held out, {len(own[0].runs[results.POLICY])} seeds each"
        for name, own in by_objective.items()
    )
