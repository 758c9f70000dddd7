"""The last step of a training: its policy against others on test requests, as a table and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np

from agents.curve_report import curve_section, warning
from agents.learning_curve import OWN_ACTIONS, LearningCurve
from agents.verdict import Costs, share_text
from llmsched_env.evaluation import Comparison, text_table, write_report
from llmsched_env.evaluation.differences import differences_text
from llmsched_env.evaluation.rendering import Opening, rich_text, write_page
from llmsched_env.evaluation.table import format_interval
from llmsched_env.evaluation.text_tables import WIDTH, TextColumn, fitting_tables
from llmsched_env.files import write_text
from llmsched_env.intervals import mean_interval, paired_interval
from llmsched_env.objectives import Objective

AGENT = "agent"
"""What tables call the policy that was trained."""
TABLE, REPORT = "table.txt", "report.html"


_FAMILIAR = ("sarathi (defaults)", "vllm_v1 (defaults)")  # in the figures, beside the best


def engine_report(comparison: Comparison, objective: Objective, folder: Path, command: str) -> str:
    """Of runs on single engines: a sentence of verdict, the learning curve, what is saved of others' costs, tables.

    Returns:
        The text down to what is saved; `table.txt` and `report.html` have all.
    """
    costs, curve = Costs.of(comparison, objective), LearningCurve.of(folder)
    verdict, opponents = costs.verdict(AGENT), costs.opponents([AGENT])
    opening = [*([curve_section(curve)] if curve.points else []), *savings_sections(comparison, costs, [AGENT])]
    reference, drawn = next(iter(opponents)), (AGENT, *OWN_ACTIONS, *opponents, *_FAMILIAR)
    write_report(
        comparison, folder / REPORT, reference=reference, title="The agent and others", command=command,
        lead=" ".join([*warning(curve), verdict, "Simulated."]), opening=opening, drawn=drawn,
    )  # fmt: skip
    text = "\n".join([*warning(curve), fill(verdict, WIDTH), "", *map(section_text, opening)])
    sentences = [fill(line, WIDTH, subsequent_indent="    ") for line in differences_text(comparison).splitlines()]
    write_text(folder / TABLE, "\n".join([text, text_table(comparison, reference), *sentences, ""]))
    return text


def savings_sections(comparison: Comparison, costs: Costs, agents: Sequence[str]) -> list[Opening]:
    """What all schedulers reach and what agents save of their costs; and that at each load, for the best ones."""
    objective, cells = costs.objective, list(comparison.by_workload_and_load())
    order = sorted(costs.names, key=lambda name: float(costs.pooled(name).mean()))
    means = {
        name: [objective.scale * cell.interval(objective.metric)[0] for *_, of_load in cells for cell in of_load
               if cell.scheduler == name]
        for name in order
    }  # fmt: skip
    shares = [(agent, where, loads) for agent in agents for where, loads in costs.groups.items()]
    header = [
        "Scheduler", *(f"{objective.title}\nload {load}, {objective.unit}" for load in costs.by_load),
        *(f"saved by {agent}\n{where}, %" for agent, where, _ in shares),
    ]  # fmt: skip
    rows = [
        [name, *(f"{value:.4g}" for value in means[name]),
         *("" if name in agents else share_text(costs.saved(agent, name, loads)) for agent, _, loads in shares)]
        for name in order
    ]  # fmt: skip
    what = "missed requests" if objective.larger_is_better else objective.title
    text = (
        f"The best one stands first. Saved: the share of the {what} of this scheduler that the agent saves, with its "
        "95 % interval, paired by test seed; below 0 the agent is worse."
    )
    at_each = [
        [f"{agent} against {name}" if len(agents) > 1 else name,
         *(share_text(costs.saved(agent, name, [load])) for load in costs.by_load)]
        for agent in agents for name in costs.opponents(agents)
    ]  # fmt: skip
    return [
        Opening("saved", "The agent and others on test requests", text, header=header, rows=rows),
        Opening(
            "loads", "Saved at each load, %", "Of the best baseline and of the best constant action.",
            header=["Against", *(f"load {load}" for load in costs.by_load)], rows=at_each,
        ),
    ]  # fmt: skip


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
    own, curve = rows[AGENT], LearningCurve.of(folder)
    header = ("Scheduler", f"{objective.title}, {objective.unit}", "agent less this one", "agent is")
    lines = [(name, _text(*mean_interval(values), objective), *_difference(own, values, objective))
             for name, values in rows.items()]  # fmt: skip
    worse = [name for name, line in zip(rows, lines, strict=True) if line[-1] == "better"]
    best = max((name for name in rows if name != AGENT), key=lambda name: objective.score(float(rows[name].mean())))
    verdict = (
        f"{objective.title}: {_against(own, rows[best], objective, best)} The agent is significantly better than "
        f"{len(worse)} of {len(rows) - 1} others."
    )
    names, *columns = (TextColumn(title, cells) for title, cells in zip(header, zip(*lines, strict=True), strict=True))
    opening = [curve_section(curve)] if curve.points else []
    parts = [*warning(curve), fill(verdict, WIDTH), "", *map(section_text, opening)]
    text = "\n".join([*parts, rich_text(*fitting_tables("", names, columns))])
    write_text(folder / TABLE, text)
    write_page(
        folder / REPORT, "tables.html.j2", title="The agent and others", opening=opening, facts=facts,
        lead=" ".join([*warning(curve), verdict, "Simulated."]), tables=[(objective.title, header, lines)],
    )  # fmt: skip
    return text


def _against(own: np.ndarray, other: np.ndarray, objective: Objective, name: str) -> str:
    """By how much the agent is better than the best other one, as a share of the mean."""
    mean, half = paired_interval(own, other)
    share, width = (100.0 * part / float(other.mean()) for part in (mean, half))
    word = "below" if share < 0 else "above"
    value, half_width = format_interval(abs(share), width)
    interval = f" ±{half_width}" if half_width else ""
    return f"the agent is {value}{interval} % {word} {name}, the best of the others."


def section_text(part: Opening) -> str:
    """A section that has a table, as text."""
    names, *columns = (
        TextColumn(title, cells) for title, cells in zip(part.header, zip(*part.rows, strict=True), strict=True)
    )
    return rich_text(*fitting_tables(part.heading, names, columns, longest_name=26), fill(part.text, WIDTH), "")


def _text(mean: float, half: float, objective: Objective) -> str:
    return " ±".join(filter(None, format_interval(objective.scale * mean, objective.scale * half)))


def _difference(own: np.ndarray, other: np.ndarray, objective: Objective) -> tuple[str, str]:
    mean, half = paired_interval(own, other)
    if own is other:
        return "", ""
    if not abs(mean) > half:
        return _text(mean, half, objective), "not significantly different"
    return _text(mean, half, objective), "better" if objective.score(mean) > 0 else "worse"
