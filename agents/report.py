"""The last step of a training: its policy against others on test requests, as a table and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np

from llmsched_env.evaluation import Comparison, text_table, write_report
from llmsched_env.evaluation.differences import differences_text
from llmsched_env.evaluation.rendering import rich_text, write_page
from llmsched_env.evaluation.table import format_interval
from llmsched_env.evaluation.text_tables import WIDTH, TextColumn, fitting_tables
from llmsched_env.files import write_text
from llmsched_env.intervals import mean_interval, paired_interval
from llmsched_env.objectives import Objective

AGENT = "agent"
"""What tables call the policy that was trained."""
TABLE, REPORT = "table.txt", "report.html"


def engine_report(comparison: Comparison, folder: Path, command: str, reference: str | None = None) -> str:
    """Of runs on single engines: tables, and whether the agent is significantly better or worse than each other."""
    lines = differences_text(comparison).splitlines()
    sentences = "\n".join(fill(line, WIDTH, subsequent_indent="    ") for line in lines)
    text = f"{text_table(comparison, reference)}\n{sentences}\n"
    write_text(folder / TABLE, text)
    write_report(comparison, folder / REPORT, reference=reference, title="The agent and others", command=command)
    return text


def paired_report(
    rows: Mapping[str, np.ndarray], objective: Objective, folder: Path, facts: Sequence[tuple[str, str]]
) -> str:
    """Of runs that all schedulers share: means, and the agent's paired differences with 95 % intervals.

    Args:
        rows: by name f8[runs] of the objective's metric, the agent's under `AGENT`.
        objective: what was measured.
        folder: where to write.
        facts: what was run, as (name, value).
    """
    own = rows[AGENT]
    header = ("Scheduler", f"{objective.title}, {objective.unit}", "agent less this one", "agent is")
    lines = [(name, _text(*mean_interval(values), objective), *_difference(own, values, objective))
             for name, values in rows.items()]  # fmt: skip
    worse = [name for name, line in zip(rows, lines, strict=True) if line[-1] == "better"]
    verdict = f"{objective.title}: the agent is significantly better than {len(worse)} of {len(rows) - 1} others."
    names, *columns = (TextColumn(title, cells) for title, cells in zip(header, zip(*lines, strict=True), strict=True))
    text = f"{rich_text(*fitting_tables('', names, columns))}{verdict}\n"
    write_text(folder / TABLE, text)
    write_page(
        folder / REPORT, "tables.html.j2", title="The agent and others", lead=f"{verdict} Simulated.",
        tables=[(objective.title, header, lines)], facts=facts,
    )  # fmt: skip
    return text


def _text(mean: float, half: float, objective: Objective) -> str:
    return " ±".join(format_interval(objective.scale * mean, objective.scale * half))


def _difference(own: np.ndarray, other: np.ndarray, objective: Objective) -> tuple[str, str]:
    mean, half = paired_interval(own, other)
    if own is other:
        return "", ""
    if not abs(mean) > half:
        return _text(mean, half, objective), "not significantly different"
    return _text(mean, half, objective), "better" if objective.score(mean) > 0 else "worse"
