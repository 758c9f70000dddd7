"""What the test seeds say: per cell the paired differences, over cells the aggregates, and the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmsched_env.evaluation.benchmark.statistics import (
    RESAMPLES,
    Interval,
    Paired,
    holm,
    improvement,
    interquartile_mean,
    mean_over_cells,
    paired,
    paired_improvement,
    reduction,
    stratified,
)
from llmsched_env.evaluation.objective import OBJECTIVES

HEADROOM = 0.995  # SLO attainment of the best tuned baseline below which there is something to gain
POLICY, TUNED, STATIC = "policy", "best tuned baseline", "best single static"
INDEX, PAUSING_INDEX = "index, tuned", "index with pausing, tuned"
ALIKE = "best tuned, four knobs"  # of the baselines that turn no more knobs than the policy


@dataclass(frozen=True, slots=True, eq=False)
class JudgedCell:
    """One cell, for one objective, on the test seeds.

    Attributes:
        name: site and load.
        held_out: whether the policy was not trained on the site.
        objective: its name.
        runs: the metric by seed, f8[n], for each role.
        settings: what each role was there.
        bound: f8[n], what no scheduler exceeds or goes below; nan where none is known.
        keeps_tpot: for each role whether it keeps the bound on TPOT of the objective, if there is one.
        difference: policy less best tuned baseline, such that above 0 is better; of latencies as a share of the mean of
            the baseline.
    """

    name: str
    held_out: bool
    objective: str
    runs: dict[str, np.ndarray]
    settings: dict[str, str]
    bound: np.ndarray
    keeps_tpot: dict[str, bool]
    difference: Paired

    @property
    def has_headroom(self) -> bool:
        """Whether the best tuned baseline leaves something to gain; a latency always does."""
        return self.objective != "slo_attainment" or self.runs[TUNED].mean() < HEADROOM

    def costs(self, role: str) -> np.ndarray:
        """f8[n]: what is to be small: the share of requests that missed a target, or a latency."""
        return costs(self.runs[role], self.objective)


def costs(values: np.ndarray, objective: str) -> np.ndarray:
    """What is to be small: 1 less an attainment, or a latency."""
    return 1.0 - values if OBJECTIVES[objective].larger_is_better else values


def difference(ours: np.ndarray, theirs: np.ndarray, objective: str, resamples: int = RESAMPLES) -> Paired:
    """Paired difference of metrics f8[n] by seed, above 0 if ours is better; see `JudgedCell`."""
    gain = costs(theirs, objective) - costs(ours, objective)
    return paired(gain if OBJECTIVES[objective].larger_is_better else gain / theirs.mean(), resamples)


@dataclass(frozen=True, slots=True)
class Against:
    """A policy against one role over many cells.

    Attributes:
        cells: how many.
        wins: of them with an interval above 0.
        ties: with an interval that holds 0.
        losses: with an interval below 0.
        reduction: interquartile mean over cells of the share of the cost (misses, latency) that is saved.
        improvement: probability that a run of the policy is better than one of the other, mean over cells.
        paired_improvement: share of seeds in which it is better on the same requests, mean over cells.
    """

    cells: int
    wins: int
    ties: int
    losses: int
    reduction: Interval
    improvement: Interval
    paired_improvement: Interval


def against(cells: Sequence[JudgedCell], role: str, resamples: int = RESAMPLES) -> Against:
    """The policy against a role, over cells.

    Raises:
        ValueError: without cells.
    """
    pairs = [(cell.costs(POLICY), cell.costs(role)) for cell in cells]
    verdicts = [
        (
            cell.difference
            if role == TUNED
            else difference(cell.runs[POLICY], cell.runs[role], cell.objective, resamples)
        ).verdict
        for cell in cells
    ]
    return Against(
        cells=len(cells),
        wins=verdicts.count("win"),
        ties=verdicts.count("tie"),
        losses=verdicts.count("loss"),
        reduction=stratified(pairs, reduction, interquartile_mean, resamples),
        improvement=stratified(pairs, improvement, mean_over_cells, resamples),
        paired_improvement=stratified(pairs, paired_improvement, mean_over_cells, resamples),
    )


def compared(cells: Sequence[JudgedCell]) -> list[str]:
    """The roles that the policy is compared with over all cells, those that there are."""
    return [role for role in (TUNED, ALIKE, INDEX, PAUSING_INDEX, STATIC) if role in cells[0].runs]


def by_objective(cells: Sequence[JudgedCell]) -> dict[str, list[JudgedCell]]:
    """The cells of each objective, in their order."""
    return {name: [c for c in cells if c.objective == name] for name in dict.fromkeys(c.objective for c in cells)}


def role_of(name: str) -> str:
    """The role of a further policy, judged like the first."""
    return f"{POLICY} {name}"


def further_policies(cells: Sequence[JudgedCell]) -> dict[str, list[JudgedCell]]:
    """The same cells with each further policy in the place of the first, by its name; all of one objective."""
    start = role_of("")
    return {role.removeprefix(start): _recast(cells, POLICY, role) for role in cells[0].runs if role.startswith(start)}


def against_alike(cells: Sequence[JudgedCell]) -> list[JudgedCell]:
    """The same cells with the best of the baselines of four knobs as the best; none where there is no such role."""
    return _recast(cells, TUNED, ALIKE) if ALIKE in cells[0].runs else []


def _recast(cells: Sequence[JudgedCell], part: str, role: str) -> list[JudgedCell]:
    """The cells with what a role did in the place of another."""
    recast = [
        replace(
            cell,
            runs=cell.runs | {part: cell.runs[role]},
            settings=cell.settings | {part: cell.settings[role]},
            keeps_tpot=cell.keeps_tpot | {part: cell.keeps_tpot[role]},
        )
        for cell in cells
    ]
    return [replace(c, difference=difference(c.runs[POLICY], c.runs[TUNED], c.objective)) for c in recast]


def significantly_worse(cells: Sequence[JudgedCell]) -> list[str]:
    """Names of the cells where the policy is (paired t-test, Holm over all cells, 5 %); all of one objective."""
    adjusted = holm([cell.difference.p for cell in cells])
    return [cell.name for cell, p in zip(cells, adjusted, strict=True) if cell.difference.mean < 0 and p < 0.05]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim: what was asked for, what was found, and whether it was reached."""

    claim: str
    found: str
    reached: bool


def all_verdicts(cells: Sequence[JudgedCell], resamples: int = RESAMPLES) -> list[Verdict]:
    """`verdicts` of the policy, of further ones, and against baselines of four knobs only, the latter two named."""
    alike = against_alike(cells)
    others = further_policies(cells) | ({"baselines of four knobs": alike} if alike else {})
    return verdicts(cells, resamples) + [
        replace(verdict, claim=f"{name}: {verdict.claim}")
        for name, own in others.items()
        for verdict in verdicts(own, resamples)
    ]


def verdicts(cells: Sequence[JudgedCell], resamples: int = RESAMPLES) -> list[Verdict]:
    """The claims for SLO attainment or mean latency, judged; all cells of one objective."""
    objective = cells[0].objective
    if objective == "p99_ttft":
        return []
    rising = OBJECTIVES[objective].larger_is_better
    open_cells = [cell for cell in cells if cell.has_headroom]
    lost = significantly_worse(cells)
    worst = min(cells, key=lambda cell: cell.difference.mean)
    wins = sum(cell.difference.verdict == "win" for cell in open_cells)
    where = f"cells with headroom (best tuned below {HEADROOM})" if rising else "cells"
    share = wins / len(open_cells) if open_cells else float("nan")
    found = [
        Verdict(
            f"better than the best tuned baseline, 95 % interval above 0, on at least 80 % of the {where}",
            f"{wins} of {len(open_cells)} ({share:.0%})" if open_cells else "no such cell",
            share >= 0.8,
        ),
        Verdict(
            "significantly worse on no cell (paired t-test, Holm over all cells, 5 %)",
            f"{len(lost)} of {len(cells)}" + (f": {'; '.join(lost)}" if lost else ""),
            not lost,
        ),
    ]
    if rising:
        found.append(
            Verdict(
                "nowhere worse than by 0.002",
                f"worst {worst.difference.mean:+.4f}, {worst.name}",
                worst.difference.mean >= -0.002,
            )
        )
    least, what = (0.10, "misses") if rising else (0.05, "mean E2E latency")
    if open_cells:
        share = stratified(
            [(c.costs(POLICY), c.costs(TUNED)) for c in open_cells], reduction, interquartile_mean, resamples
        )
        text = f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"
        found.append(
            Verdict(
                f"{what} at least {least:.0%} lower in the interquartile mean over {where}", text, share.value >= least
            )
        )
    return found
