"""The report of the benchmark: one HTML page, tables in Markdown, and the headline figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmsched_env.evaluation.benchmark import figures, judged, tables
from llmsched_env.evaluation.benchmark.judged import Against, JudgedCell, against, all_verdicts
from llmsched_env.evaluation.benchmark.sections import Section
from llmsched_env.evaluation.benchmark.statistics import RESAMPLES
from llmsched_env.evaluation.drawing import styled, svg_text
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.evaluation.page import svg_source, write_page

_DPI = 150


def write_benchmark(
    cells: Sequence[JudgedCell],
    more: Sequence[Section],
    folder: Path,
    facts: Sequence[tuple[str, str]] = (),
    resamples: int = RESAMPLES,
) -> Path:
    """Write `report.html`, `benchmark.md`, `verdicts.txt`, `headline.svg` and `headline.png` to a folder.

    Args:
        cells: single engines, of all objectives.
        more: what is judged beside them; perhaps nothing.
        folder: where to.
        facts: what was run, as (name, value).
        resamples: of the bootstraps.

    Returns:
        The path of the page.

    Raises:
        ValueError: without cells.
    """
    if not cells:
        raise ValueError("cells is empty; at least one is needed")
    by_objective = judged.by_objective(cells)
    claims = [(OBJECTIVES[name].title, v) for name, own in by_objective.items() for v in all_verdicts(own, resamples)]
    claims += [claim for section in more for claim in section.claims]
    shown = {name: own for name, own in by_objective.items() if name != "p99_ttft"} or by_objective
    found = {name: _against_all(own, resamples) for name, own in shown.items()}
    facts = [*facts, ("Cells", _counts(by_objective)), ("Intervals", f"95 %, {resamples} resamples")]
    parts = {name: tables.objective_tables(own, resamples) for name, own in by_objective.items()}
    claim_table = tables.verdict_table(claims)
    with styled():
        head = figures.headline(shown, found)
        svg = svg_text(head)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "headline.svg").write_text(svg, encoding="utf-8")
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
    lines = [f"{v.found}: {v.claim}: {'reached' if v.reached else 'NOT reached'}" for _, v in claims]
    (folder / "verdicts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    further = [table for section in more for table in section.tables]
    everything = [claim_table, *(table for own in parts.values() for table in own), *further]
    text = "\n".join([*(table.markdown() for table in everything), *(f"- {name}: {value}" for name, value in facts)])
    (folder / "benchmark.md").write_text(text + "\n", encoding="utf-8")
    return write_page(
        folder / "report.html",
        "benchmark.html.j2",
        title="Learned policies against the best tuned baselines",
        lead=f"{sum(v.reached for _, v in claims)} of {len(claims)} claims reached. Simulated.",
        claims=claim_table,
        headline=svg_source(svg),
        sections=sections,
        more=more,
        settings=tables.setting_table(cells),
        facts=facts,
    )


def _against_all(cells: Sequence[JudgedCell], resamples: int) -> dict[str, Against]:
    chosen = [cell for cell in cells if cell.has_headroom] or list(cells)
    return {role: against(chosen, role, resamples) for role in judged.compared(cells)}


def _counts(by_objective: dict[str, list[JudgedCell]]) -> str:
    return "; ".join(
        f"{OBJECTIVES[name].title}: {len(own)}, {sum(c.has_headroom for c in own)} with headroom, "
        f"{sum(c.held_out for c in own)} held out, {len(own[0].runs[judged.POLICY])} seeds each"
        for name, own in by_objective.items()
    )
