"""The tables of the benchmark, for the HTML page and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmsched_env.evaluation.benchmark import results
from llmsched_env.evaluation.benchmark.azure_traces import TraceResult
from llmsched_env.evaluation.benchmark.clusters import SAME_ROUTER
from llmsched_env.evaluation.benchmark.results import CellResult, Claim, RoleComparison, compare_with_role
from llmsched_env.evaluation.benchmark.statistics import (
    RESAMPLES,
    BlockMean,
    Interval,
    PairedDifference,
    holm,
    interquartile_mean,
    saved,
)
from llmsched_env.evaluation.rendering import markdown_table
from llmsched_env.objectives import OBJECTIVES, Objective

_NOTHING = "–"


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table of text cells.

    Attributes:
        title: its heading.
        caption: what the numbers are.
        header: names of the columns.
        rows: the cells.
        texts: indices of the columns with text; the others hold numbers.
    """

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: tuple[int, ...] = (0,)

    def markdown(self) -> str:
        """As Markdown, with title and caption."""
        table = markdown_table(self.header, self.rows, self.texts)
        return "\n".join([f"### {self.title}", "", self.caption, "", *table, ""])


def claim_table(claims: Sequence[tuple[str, Claim]]) -> ReportTable:
    """Claims and whether they were reached; (title of the objective, claim) each."""
    rows = [(title, c.text, c.found, "reached" if c.reached else "not reached") for title, c in claims]
    return ReportTable(
        "Claims", "On the test seeds.", ("Objective", "Claim", "Found", "Verdict"), tuple(rows), (0, 1, 2, 3)
    )


def objective_tables(cells: Sequence[CellResult], resamples: int = RESAMPLES) -> list[ReportTable]:
    """All tables of an objective: aggregates, policies if there are several, headroom, and the cells of each policy."""
    additional = results.additional_policies(cells)
    policies = [policy_table(cells, additional, resamples)] if additional else []
    more = [cell_table(own) for own in additional.values()]
    more = [replace(table, title=f"{table.title}, {name}") for table, name in zip(more, additional, strict=True)]
    return [aggregate_table(cells, resamples), *policies, headroom_table(cells), cell_table(cells), *more]


def policy_table(
    cells: Sequence[CellResult], additional: Mapping[str, Sequence[CellResult]], resamples: int = RESAMPLES
) -> ReportTable:
    """Each policy against the best tuned baselines and the other roles; all cells of one objective."""
    goal, rows = OBJECTIVES[cells[0].objective], []
    for name, own in {results.POLICY: cells, **additional}.items():
        chosen = [cell for cell in own if cell.has_headroom] or list(own)
        worse, worst = results.significantly_worse(own), min(own, key=lambda cell: cell.difference.mean)
        of_all = (f"{len(worse)} of {len(own)}", f"{100 * worst.difference.mean:+.2f}, {worst.name}")
        groups = {"with headroom": chosen}
        groups |= {
            group: [cell for cell in chosen if cell.held_out == held_out]
            for group, held_out in (("trained on", False), ("held out", True))
        }
        for role in results.compared_roles(cells):
            for group, members in groups.items():
                if members and (members is chosen or (role == results.TUNED and len(members) < len(chosen))):
                    found = _against_text(compare_with_role(members, role, resamples))[:5]
                    more = of_all if role == results.TUNED and members is chosen else (_NOTHING, _NOTHING)
                    rows.append((name, role, group, *found, *more))
    unit = "points of %" if goal.larger_is_better else "% of its mean"
    caption = (
        "Headroom is that of the best tuned baseline. Significantly worse: paired t-test, corrected by Holm, of all "
        f"cells with and without headroom; worst: the same, in {unit}."
    )
    header = ("Policy", "Against", "Cells", "n", "Won", "Tied", "Lost", "Saved", "Significantly worse", "Worst")
    return ReportTable(f"{goal.title}: policies", caption, header, tuple(rows), (0, 1, 2, 8, 9))


def aggregate_table(cells: Sequence[CellResult], resamples: int = RESAMPLES) -> ReportTable:
    """The policy against each role, over groups of cells; all cells of one objective."""
    goal = OBJECTIVES[cells[0].objective]
    groups: dict[str, Callable[[CellResult], bool]] = {
        "all cells": lambda cell: True,
        "with headroom": lambda cell: cell.has_headroom,
        "trained on, with headroom": lambda cell: cell.has_headroom and not cell.held_out,
        "held out, with headroom": lambda cell: cell.has_headroom and cell.held_out,
    }
    if all(cell.has_headroom for cell in cells):
        groups = {
            "all cells": groups["all cells"],
            "trained on": lambda c: not c.held_out,
            "held out": lambda c: c.held_out,
        }
    rows = []
    for role in results.compared_roles(cells):
        for name, member in groups.items():
            chosen = [cell for cell in cells if member(cell)]
            if chosen:
                rows.append((role, name, *_against_text(compare_with_role(chosen, role, resamples))))
    what = "requests that miss a target" if goal.larger_is_better else goal.title
    caption = (
        f"Saved: interquartile mean over cells of the share of {what} that the policy saves, with the 95 % interval "
        "from resampling seeds within cells. Better run: probability that a run of the policy is better than one of "
        "the other, whatever the seeds; same requests: share of seeds in which it is."
    )
    header = ("Against", "Cells", "n", "Won", "Tied", "Lost", "Saved", "Better run", "Same requests")
    return ReportTable(f"{goal.title}: the policy against", caption, header, tuple(rows), (0, 1))


def cell_table(cells: Sequence[CellResult]) -> ReportTable:
    """One row a cell, the best difference first; all cells of one objective."""
    goal = OBJECTIVES[cells[0].objective]
    adjusted = _adjusted(cells)
    rows = []
    for cell in sorted(cells, key=lambda cell: -cell.difference.mean):
        bound = _NOTHING if np.isnan(cell.bound).any() else _number(cell.bound.mean(), cell.objective)
        rows.append(
            (
                *_against_best(cell, adjusted),
                _role_text(cell, results.INDEX),
                _role_text(cell, results.STATIC),
                bound,
            )
        )
    unit = "points of %" if goal.larger_is_better else "% of the baseline's mean"
    caption = (
        f"{goal.title} in {goal.unit}, means over test seeds. Difference: policy less best tuned baseline on the same "
        f"requests, in {unit}, above 0 is better, 95 % interval; ✓ above 0, ✗ below. p: paired t-test, corrected by "
        "Holm. Saved: share of the cost of the best tuned baseline; -900 % stands for anything below. Bound: of "
        "all schedulers."
    )
    if goal.tpot_bound:
        caption += f" *: fewer than {goal.tpot_bound:.0%} of the requests meet their TPOT target."
    header = (
        "Cell",
        "Policy",
        "Best tuned",
        "which is",
        "Difference",
        "p",
        "Saved",
        "Index, tuned",
        "Single static",
        "Bound",
    )
    return ReportTable(f"{goal.title}: cells", caption, header, tuple(rows), (0, 3))


def headroom_table(cells: Sequence[CellResult]) -> ReportTable:
    """The metric of every scheduler over the cells with headroom; all cells of one objective."""
    goal, objective = OBJECTIVES[cells[0].objective], cells[0].objective
    chosen = [cell for cell in cells if cell.has_headroom] or list(cells)
    rows = []
    for role in chosen[0].runs:
        means = [cell.runs[role].mean() for cell in chosen]
        mark = "" if all(cell.keeps_tpot[role] for cell in chosen) else "*"
        rows.append((role + mark, *_headroom_numbers(means, [c.costs(role) for c in chosen], chosen, objective)))
    rows.sort(key=lambda row: float(row[1].split()[0]), reverse=goal.larger_is_better)
    bounded = [cell for cell in chosen if np.isfinite(cell.bound).all()]
    if bounded and len(bounded) == len(chosen):
        costs = [results.costs(cell.bound, objective) for cell in bounded]
        rows.append(("bound", *_headroom_numbers([c.bound.mean() for c in bounded], costs, bounded, objective)))
    middle = "mean" if goal.larger_is_better else "geometric mean"
    caption = (
        f"Over the cells with headroom ({len(chosen)}): the {middle} of {goal.title} in {goal.unit}, the worst cell, "
        "and the interquartile mean of the share of the cost of the best tuned baseline that is saved. That baseline "
        "is tuned for each cell, and of the index the best setting for each cell is taken; all others are the same "
        "everywhere; a name alone is a published default."
    )
    if goal.tpot_bound:
        caption += f" *: somewhere fewer than {goal.tpot_bound:.0%} of the requests meet their TPOT target."
    return ReportTable(
        f"{goal.title}: headroom", caption, ("Scheduler", middle.capitalize(), "Worst", "Saved"), tuple(rows)
    )


def trace_table(traces: Sequence[TraceResult]) -> ReportTable:
    """The policies on the Azure traces."""
    rows = []
    for trace in traces:
        d, goal = trace.difference, OBJECTIVES[trace.objective]
        rows.append(
            (
                trace.name,
                trace.policy_name,
                goal.title,
                f"{trace.requests}",
                _trace_number(trace.policy, goal),
                _trace_number(trace.tuned, goal),
                trace.setting.split("(")[0],
                _difference_text(d),
                f"{d.p:.2g}",
                f"{d.length}",
            )
        )
    caption = (
        "All rows replayed; the baseline is the best on the first half of them, tuned there. Difference: mean over "
        "requests, in points of % or % of the baseline's mean, with the 95 % interval of a moving-block bootstrap over "
        "requests in order of arrival; p by the same; block: its length in requests."
    )
    header = (
        "Trace",
        "Judged",
        "Objective",
        "Requests",
        "Policy",
        "Best tuned",
        "which is",
        "Difference",
        "p",
        "Block",
    )
    return ReportTable("Azure traces", caption, header, tuple(rows), (0, 1, 2, 6))


def cluster_table(cells: Sequence[CellResult]) -> ReportTable:
    """One row a cluster, the best difference first; all of one objective."""
    goal, adjusted = OBJECTIVES[cells[0].objective], _adjusted(cells)
    rows = [
        (*_against_best(cell, adjusted), _role_text(cell, SAME_ROUTER), cell.settings[SAME_ROUTER].split("(")[0])
        for cell in sorted(cells, key=lambda cell: -cell.difference.mean)
    ]
    unit = "points of %" if goal.larger_is_better else "% of the baseline's mean"
    caption = (
        f"{goal.title} in {goal.unit} of all requests, means over test seeds. The policy runs on every engine behind "
        f"{cells[0].settings[results.POLICY].split(',')[0]}. Best pair: the router and scheduler that were best on the "
        f"tuning seeds. Difference: policy less best pair on the same requests, in {unit}, above 0 is better, 95 % "
        "interval; ✓ above 0, ✗ below. p: paired t-test, corrected by Holm. Same router: the best scheduler behind the "
        "router of the policy."
    )
    header = ("Cluster", "Policy", "Best pair", "which is", "Difference", "p", "Saved", "Same router", "which is")
    return ReportTable(f"{goal.title}: clusters", caption, header, tuple(rows), (0, 3, 8))


def setting_table(cells: Sequence[CellResult]) -> ReportTable:
    """The tuned parameters of every cell."""
    rows = [
        (cell.name, OBJECTIVES[cell.objective].title, cell.settings[results.TUNED], cell.settings[results.INDEX])
        for cell in cells
    ]
    return ReportTable(
        "Settings",
        "What was tuned for each cell.",
        ("Cell", "Objective", "Best tuned", "Index"),
        tuple(rows),
        (0, 1, 2, 3),
    )


def interval_text(interval: Interval) -> str:
    """A share with its interval, in %."""
    return f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def _adjusted(cells: Sequence[CellResult]) -> dict[str, float]:
    """The p-value of each cell, corrected by Holm."""
    return dict(zip([cell.name for cell in cells], holm([cell.difference.p for cell in cells]), strict=True))


def _against_best(cell: CellResult, adjusted: Mapping[str, float]) -> tuple[str, ...]:
    """Cell, policy, best baseline and its name, difference, p-value, and share of the cost saved."""
    return (
        cell.name + (" (held out)" if cell.held_out else ""),
        _role_text(cell, results.POLICY),
        _role_text(cell, results.TUNED),
        cell.settings[results.TUNED].split("(")[0],
        _difference_text(cell.difference),
        f"{adjusted[cell.name]:.2g}",
        f"{saved(cell.costs(results.POLICY), cell.costs(results.TUNED)):+.1%}",
    )


def _difference_text(d: PairedDifference | BlockMean) -> str:
    mark = "✓" if d.low > 0 else "✗" if d.high < 0 else ""
    return f"{100 * d.mean:+.2f} [{100 * d.low:+.2f}, {100 * d.high:+.2f}]{mark}"


def _against_text(found: RoleComparison) -> tuple[str, ...]:
    counts = (found.cells, found.wins, found.ties, found.losses)
    shares = (found.reduction, found.improvement, found.paired_improvement)
    return (*map(str, counts), *map(interval_text, shares))


def _trace_number(value: float, goal: Objective) -> str:
    return f"{100 * value:.2f} %" if goal.larger_is_better else f"{value:.3g} s"


def _headroom_numbers(
    means: Sequence[float], costs: Sequence[np.ndarray], cells: Sequence[CellResult], objective: str
) -> tuple[str, str, str]:
    rising = OBJECTIVES[objective].larger_is_better
    middle = float(np.mean(means) if rising else np.exp(np.mean(np.log(means))))
    worst = min(means) if rising else max(means)
    shares = np.array([saved(own, cell.costs(results.TUNED)) for own, cell in zip(costs, cells, strict=True)])
    return _number(middle, objective), _number(worst, objective), f"{float(interquartile_mean(shares)):+.1%}"


def _role_text(cell: CellResult, role: str) -> str:
    return _number(cell.runs[role].mean(), cell.objective) + ("" if cell.keeps_tpot[role] else "*")


def _number(value: float, objective: str) -> str:
    scaled = OBJECTIVES[objective].scale * value
    return f"{scaled:.2f}" if OBJECTIVES[objective].larger_is_better else f"{scaled:.4g}"
