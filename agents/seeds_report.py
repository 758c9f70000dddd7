"""Several trainings that differ in their seed alone: curves with intervals, the verdict on each and on all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np

from agents.curve_report import curve_figure, warning
from agents.learning_curve import LearningCurve
from agents.problem import Problem
from agents.problems.engine import EngineProblem
from agents.report import REPORT, TABLE, savings_sections, section_text
from agents.verdict import Costs, share_text
from llmsched_env.evaluation import write_report
from llmsched_env.evaluation.benchmark.statistics import interquartile_mean, reduction, stratified
from llmsched_env.evaluation.rendering import Opening, svg_source, write_page
from llmsched_env.evaluation.text_tables import WIDTH
from llmsched_env.files import write_text
from llmsched_env.intervals import mean_interval


def seeds_report(problem: Problem, folders: Mapping[int, Path], out: Path, command: str) -> str:
    """The report on trainings of several seeds, as `table.txt` and `report.html`; returns what to print.

    Args:
        problem: of one of them.
        folders: of the trainings, by seed.
        out: where to write.
        command: that made them.
    """
    curves = {seed: LearningCurve.of(folder) for seed, folder in folders.items()}
    warnings = [f"Seed {seed}: {line}" for seed, curve in curves.items() for line in warning(curve)]
    opening = [_curves_section(curves)]
    title = f"{len(folders)} trainings of {problem.config.name}"
    if not isinstance(problem, EngineProblem):
        firsts = [_first_sentence(seed, folder) for seed, folder in folders.items()]
        lead = " ".join([*warnings, *firsts])
        text = "\n".join([*warnings, *(fill(line, WIDTH) for line in firsts), "", section_text(opening[0])])
        write_page(
            out / REPORT,
            "tables.html.j2",
            title=title,
            lead=lead,
            opening=opening,
            tables=[],
            facts=[("Command", command)],
        )
        write_text(out / TABLE, text)
        return text
    agents = {f"agent {seed}": folder / problem.best for seed, folder in folders.items()}
    comparison = problem.compared(agents, out)
    costs = Costs.of(comparison, problem.objective)
    verdict = pooled_verdict(costs, list(agents))
    opening += [_verdicts_section(costs, list(agents)), *savings_sections(comparison, costs, list(agents))[1:]]
    opponents = costs.opponents(list(agents))
    write_report(
        comparison, out / REPORT, reference=next(iter(opponents)), title=title, command=command,
        lead=" ".join([*warnings, verdict, "Simulated."]), opening=opening, drawn=[*agents, *opponents],
    )  # fmt: skip
    text = "\n".join([*warnings, fill(verdict, WIDTH), "", *map(section_text, opening)])
    write_text(out / TABLE, text)
    return text


def pooled_verdict(costs: Costs, agents: Sequence[str]) -> str:
    """What the agents of all training seeds save of the costs of the best others, in a sentence."""
    clauses = []
    what = "requests missed" if costs.objective.larger_is_better else costs.objective.title
    for where, loads in costs.groups.items():
        texts = []
        for name, title in costs.opponents(agents, loads).items():
            pairs = [(costs.pooled(agent, loads), costs.pooled(name, loads)) for agent in agents]
            texts.append(
                f"{share_text(stratified(pairs, reduction, interquartile_mean))} % of those of {title}, {name}"
            )
        clauses.append(f"at {where} {' and '.join(texts)}")
    return (
        f"Saved of the {what}, interquartile mean over {len(agents)} training seeds with 95 % intervals (stratified "
        f"bootstrap over {len(costs.pooled(agents[0]))} test seeds): {'; '.join(clauses)}."
    )


def _verdicts_section(costs: Costs, agents: Sequence[str]) -> Opening:
    """A row for each training seed, and their mean."""
    columns = [(where, loads, name) for where, loads in costs.groups.items() for name in costs.opponents(agents, loads)]
    header = ["Training", *(f"{where}\nagainst {name}, %" for where, _, name in columns)]
    shares = {agent: [costs.saved(agent, name, loads) for _, loads, name in columns] for agent in agents}
    rows = [[agent, *map(share_text, own)] for agent, own in shares.items()]
    means = [mean_interval([own[k].value for own in shares.values()]) for k in range(len(columns))]
    rows.append(["mean over seeds", *(f"{100 * mean:+.1f} ±{100 * half:.1f}" for mean, half in means)])
    text = (
        "Share of the other's cost that each agent saves, paired by test seed; below 0 it is worse. The interval of "
        "the mean is the t-interval over the training seeds."
    )
    return Opening("seeds", "Saved by each training", text, header=header, rows=rows)


def _curves_section(curves: Mapping[int, LearningCurve]) -> Opening:
    """All curves, and their mean with its interval over the seeds, validation by validation."""
    first = next(iter(curves.values()))
    count = min(len(curve.points) for curve in curves.values())
    steps = np.array([[point.step for point in curve.points[:count]] for curve in curves.values()], float).mean(axis=0)
    values = np.array([[point.value for point in curve.points[:count]] for curve in curves.values()])
    mean, half = np.array([mean_interval(column) for column in values.T]).T
    unit = f", {first.value_unit}" if first.value_unit else ""
    header = [first.unit.capitalize(), f"{first.title}{unit}", "95 % interval ±", *(f"seed {seed}" for seed in curves)]
    rows = [
        [f"{steps[k]:,.0f}", f"{first.scale * mean[k]:.5g}", f"{first.scale * half[k]:.2g}",
         *(f"{first.scale * value:.5g}" for value in values[:, k])]
        for k in range(count)
    ]  # fmt: skip
    text = (
        f"{first.title} on the validation runs, mean over {len(curves)} training seeds with its 95 % t-interval over "
        "them. Lines: others on the same runs."
    )
    picture = svg_source(curve_figure(list(curves.values()), (steps, mean, np.nan_to_num(half))))
    return Opening("curve", "Learning curves", text, picture, header, rows)


def _first_sentence(seed: int, folder: Path) -> str:
    """The verdict in the report of one training."""
    paragraph = (folder / TABLE).read_text(encoding="utf-8").split("\n\n")[0]
    return f"Seed {seed}: {' '.join(paragraph.split())}"
