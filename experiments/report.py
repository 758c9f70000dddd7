"""The outcomes as a text table, and as one HTML file with all figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from experiments.check import Check, Value
from experiments.experiment import Experiment, Outcome
from llmsched_env.evaluation.rendering import rich_text, svg_source, write_page
from llmsched_env.evaluation.table import format_interval

_MARKS = {"pass": "✓", "fail": "✗", "undecided": "?", "pending": "…"}
_COLORS = {"pass": "green", "fail": "bold red", "undecided": "bold red", "pending": "yellow"}
_TERMS = (
    ("Published", "the value in the paper; if that is one run of one seed, it is shown but not compared with"),
    ("Theory", "the value of a formula"),
    ("Ours ±", "mean over seeds and half width of its 95 % t-interval; without ± nothing is random"),
    (
        "Verdict",
        "pass or fail by the rule in the last column; undecided (which counts as failure) if the interval allows both, "
        "or is too wide to show anything; pending if a part that the experiment needs does not exist yet",
    ),
    ("b_max, t_b", "token budget of a batch; time of a batch of b tokens"),
    ("λ*", "critical rate: b_max / (t_bmax · mean tokens per request)"),
)


def write_report(
    experiments: Mapping[str, Experiment],
    outcomes: Mapping[str, Outcome],
    path: Path,
    facts: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write the report of these outcomes: one HTML file that needs no other file.

    Args:
        experiments: by name.
        outcomes: by name of the experiment, in the order of the report.
        path: the HTML file.
        facts: what was run, as (name, value).

    Returns:
        `path`.
    """
    sections = [
        {
            "experiment": experiments[name],
            "rows": [_row(check) for check in outcome.checks],
            "counts": {verdict: sum(check.verdict == verdict for check in outcome.checks) for verdict in _MARKS},
            "pictures": [(picture.caption, svg_source(picture.svg)) for picture in outcome.pictures],
        }
        for name, outcome in outcomes.items()
    ]
    return write_page(
        path,
        "reproduction.html.j2",
        package="experiments",
        title="arXiv 2504.07347, reproduced",
        lead=f"{tally(all_checks(outcomes))}. Simulated.",
        sections=sections,
        facts=facts,
        terms=_TERMS,
    )


def text_table(outcomes: Mapping[str, Outcome], color: bool = False) -> str:
    """All checks as a table for a terminal of 100 columns."""
    table = Table(title="Published | theory | ours | verdict", title_justify="left", title_style="bold")
    table.add_column("Check")
    for title in ("Published", "Theory", "Ours"):
        table.add_column(title, justify="right", max_width=21)
    table.add_column("Verdict", no_wrap=True)
    for name, outcome in outcomes.items():
        table.add_section()
        table.add_row(Text(name, "bold"))
        for check in outcome.checks:
            row = _row(check)
            ours = row["ours"] + (f" ± {row['half_width']}" if row["half_width"] else "")
            verdict = Text(f"{row['mark']} {check.verdict}", _COLORS[check.verdict])
            table.add_row(f"  {check.name}", row["published"], row["theory"], ours, verdict)
    return rich_text(table, tally(all_checks(outcomes)), color=color)


def all_checks(outcomes: Mapping[str, Outcome]) -> list[Check]:
    """The checks of all experiments."""
    return [check for outcome in outcomes.values() for check in outcome.checks]


def tally(checks: Sequence[Check]) -> str:
    """The number of checks by verdict, as text."""
    counts = Counter(check.verdict for check in checks)
    return f"{len(checks)} checks: " + ", ".join(
        f"{counts[verdict]} {verdict}" for verdict in _MARKS if counts[verdict]
    )


def _row(check: Check) -> dict[str, str]:
    ours, half_width = _text(check.ours), ""
    if isinstance(check.ours, float) and not math.isnan(check.half_width):
        ours, half_width = format_interval(check.ours, check.half_width)
    return {
        "name": check.name,
        "published": _text(check.published),
        "theory": _text(check.theory),
        "ours": ours,
        "half_width": half_width,
        "verdict": check.verdict,
        "mark": _MARKS[check.verdict],
        "note": check.note,
    }


def _text(value: Value) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:,.6g}".replace(",", "\u202f")
