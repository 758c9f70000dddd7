"""The report of the benchmark: one HTML page, tables in Markdown, and the headline figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmsched_env.evaluation.benchmark import figures, judged, tables
from llmsched_env.evaluation.benchmark.azure import JudgedTrace
from llmsched_env.evaluation.benchmark.judged import Against, JudgedCell, against, verdicts
from llmsched_env.evaluation.benchmark.statistics import RESAMPLES
from llmsched_env.evaluation.drawing import styled, svg_text
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.evaluation.page import svg_source, write_page

_DPI = 150


def write_benchmark(
    cells: Sequence[JudgedCell],
    traces: Sequence[JudgedTrace],
    folder: Path,
    facts: Sequence[tuple[str, str]] = (),
    resamples: int = RESAMPLES,
) -> Path:
    """Write `report.html`, `benchmark.md`, `verdicts.txt`, `headline.svg` and `headline.png` to a folder.

    Args:
        cells: of all objectives.
        traces: the Azure slices; perhaps none.
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
    by_objective = {
        name: [c for c in cells if c.objective == name] for name in dict.fromkeys(c.objective for c in cells)
    }
    claims = [(name, verdict) for name, own in by_objective.items() for verdict in verdicts(own, resamples)]
    claims += [("slo_attainment", v) for v in [_trace_verdict(traces)] if v]
    shown = {name: own for name, own in by_objective.items() if name != "p99_ttft"} or by_objective
    found = {name: _against_all(own, resamples) for name, own in shown.items()}
    facts = [*facts, ("Cells", _counts(by_objective)), ("Intervals", f"95 %, {resamples} resamples")]
    parts = {
        name: [tables.aggregate_table(own, resamples), tables.audit_table(own), tables.cell_table(own)]
        for name, own in by_objective.items()
    }
    claim_table, trace_tables = tables.verdict_table(claims), [tables.trace_table(traces)] if traces else []
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
    everything = [claim_table, *(table for own in parts.values() for table in own), *trace_tables]
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
        traces=trace_tables,
        settings=tables.setting_table(cells),
        facts=facts,
    )


def _against_all(cells: Sequence[JudgedCell], resamples: int) -> dict[str, Against]:
    chosen = [cell for cell in cells if cell.has_headroom] or list(cells)
    return {role: against(chosen, role, resamples) for role in (judged.TUNED, judged.INDEX, judged.STATIC)}


def _trace_verdict(traces: Sequence[JudgedTrace]) -> judged.Verdict | None:
    own = [t for t in traces if t.objective == "slo_attainment"]
    if not own:
        return None
    open_ones = [t for t in own if t.tuned < judged.HEADROOM]
    wins = sum(t.difference.low > 0 for t in open_ones)
    worst = min(own, key=lambda t: t.difference.mean)
    lost = sum(t.difference.high < 0 for t in own)
    return judged.Verdict(
        "Azure traces: interval above 0 on at least 80 % of those with headroom, below 0 on none, nowhere worse "
        "than by 0.002",
        f"{wins} of {len(open_ones)}, {lost} below, worst {worst.difference.mean:+.4f} ({worst.name})",
        wins >= 0.8 * len(open_ones) and not lost and worst.difference.mean >= -0.002,
    )


def _counts(by_objective: dict[str, list[JudgedCell]]) -> str:
    return "; ".join(
        f"{OBJECTIVES[name].title}: {len(own)}, {sum(c.has_headroom for c in own)} with headroom, "
        f"{sum(c.held_out for c in own)} held out, {len(own[0].runs[judged.POLICY])} seeds each"
        for name, own in by_objective.items()
    )
