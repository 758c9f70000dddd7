"""The last step of a training: its policy against others on test requests, as a table and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np

from agents.curve_report import curve_section, warning
from agents.learning_curve import OWN_ACTIONS, LearningCurve
from agents.verdict import POOLED, Costs, outcome, share_text
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


def engine_report(comparison: Comparison, objective: Objective, folder: Path, command: str) -> str:
    """Of runs on single engines: a sentence of verdict, the learning curve, what is saved of others' costs, tables."""
    costs, curve = Costs.of(comparison, objective), LearningCurve.of(folder)
    against = opponents(costs, [AGENT])
    verdict = verdict_text(costs, AGENT, against)
    savings = savings_section(costs, [AGENT])
    opening = [*([curve_section(curve)] if curve.points else []), savings]
    drawn = [name for name in comparison.schedulers if name in (AGENT, *OWN_ACTIONS, *against, *_FAMILIAR)]
    write_report(
        comparison, folder / REPORT, reference=against[0], title="The agent and others", command=command,
        lead=" ".join([*warning(curve), verdict, "Simulated."]), opening=opening, drawn=drawn,
    )  # fmt: skip
    sentences = [fill(line, WIDTH, subsequent_indent="    ") for line in differences_text(comparison).splitlines()]
    parts = [*warning(curve), fill(verdict, WIDTH), "", *(_text_of(part) for part in opening)]
    text = "\n".join([*parts, text_table(comparison, against[0]), *sentences, ""])
    write_text(folder / TABLE, text)
    return text


_FAMILIAR = ("sarathi (defaults)", "vllm_v1 (defaults)")  # in the figures, beside the best


def opponents(costs: Costs, agents: Sequence[str]) -> list[str]:
    """The best baseline, and the best constant action if there is one."""
    best = costs.best_baseline([*agents, *OWN_ACTIONS])
    return [best, *(name for name in OWN_ACTIONS[1:] if name in costs.pooled)]


def verdict_text(costs: Costs, agent: str, against: Sequence[str]) -> str:
    """The verdict on an agent in one sentence."""
    clauses = [f"{costs.sentence(agent, name)} ({outcome(costs.saved(agent, name))})" for name in against]
    seeds = len(costs.pooled[agent])
    basis = f"{seeds} test seeds, paired 95 % intervals" if seeds > 1 else "one trace, so no intervals"
    return f"The {agent} {'; it '.join(clauses)}. {basis[0].upper()}{basis[1:]}."


def savings_section(costs: Costs, agents: Sequence[str]) -> Opening:
    """What agents save of the costs of all others, at each load and over all."""
    places = list(costs.by_place)
    header = ["Scheduler", *(f"{place}, %" for place in places)]
    rows = []
    for agent in agents:
        others = sorted((name for name in costs.pooled if name not in agents), key=lambda n: costs.pooled[n].mean())
        whose = f"{agent} against " if len(agents) > 1 else ""
        rows += [[whose + name, *(share_text(costs.saved(agent, name, place)) for place in places)] for name in others]
    what = "of the missed requests" if costs.objective.larger_is_better else f"of the {costs.objective.title}"
    text = (
        f"The share {what} of each other scheduler that the agent saves, in % with its 95 % interval, paired by test "
        "seed; below 0 the agent is worse. The best other one stands first."
    )
    if POOLED in places:
        text += f" {POOLED.capitalize()}: of the sums over the loads."
    return Opening("saved", "What the agent saves", text, header=header, rows=rows)


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
    parts = [*warning(curve), fill(verdict, WIDTH), "", *map(_text_of, opening)]
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


def _text_of(part: Opening) -> str:
    """A section as text."""
    names, *columns = (
        TextColumn(title, cells) for title, cells in zip(part.header, zip(*part.rows, strict=True), strict=True)
    )
    return rich_text(*fitting_tables(part.heading, names, columns), fill(part.text, WIDTH), "")


def _text(mean: float, half: float, objective: Objective) -> str:
    return " ±".join(filter(None, format_interval(objective.scale * mean, objective.scale * half)))


def _difference(own: np.ndarray, other: np.ndarray, objective: Objective) -> tuple[str, str]:
    mean, half = paired_interval(own, other)
    if own is other:
        return "", ""
    if not abs(mean) > half:
        return _text(mean, half, objective), "not significantly different"
    return _text(mean, half, objective), "better" if objective.score(mean) > 0 else "worse"
