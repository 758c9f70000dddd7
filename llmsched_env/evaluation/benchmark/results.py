"""Results on the test seeds: paired differences of each cell, aggregates over cells, and claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmsched_env.evaluation.benchmark.statistics import (
    RESAMPLES,
    Interval,
    PairedDifference,
    holm,
    improvement,
    interquartile_mean,
    mean_over_cells,
    paired,
    paired_improvement,
    reduction,
    stratified,
)
from llmsched_env.objectives import OBJECTIVES

HEADROOM = 0.995
"""A cell has headroom if the SLO attainment of its best tuned baseline is below this."""

POLICY, TUNED, STATIC = "policy", "best tuned baseline", "best single static"
INDEX, PAUSING_INDEX = "index, tuned", "index with pausing, tuned"
FOUR_KNOBS = "best tuned, four knobs"
"""Roles of the schedulers that are run on the test seeds of a cell."""


@dataclass(frozen=True, slots=True, eq=False)
class CellResult:
    """One objective of one cell on the test seeds.

    Attributes:
        name: site and load.
        held_out: whether the policy was not trained on the site.
        objective: its name.
        runs: the metric by seed, f8[n], for each role.
        settings: the scheduler of each role, as text.
        bound: f8[n], the bound for all schedulers; nan if none is known.
        keeps_tpot: for each role whether it keeps the objective's bound on TPOT, if there is one.
        difference: policy minus best tuned baseline with the sign that positive is better; for latencies relative to
            the mean of the baseline.
    """

    name: str
    held_out: bool
    objective: str
    runs: dict[str, np.ndarray]
    settings: dict[str, str]
    bound: np.ndarray
    keeps_tpot: dict[str, bool]
    difference: PairedDifference

    @property
    def has_headroom(self) -> bool:
        """Whether the best tuned baseline can be improved on; a latency always can."""
        return self.objective != "slo_attainment" or self.runs[TUNED].mean() < HEADROOM

    def costs(self, role: str) -> np.ndarray:
        """The number to minimise by seed, f8[n]: the share of requests that miss a target, or a latency."""
        return costs(self.runs[role], self.objective)


def costs(values: np.ndarray, objective: str) -> np.ndarray:
    """The numbers to minimise: 1 minus an attainment, or a latency."""
    return 1.0 - values if OBJECTIVES[objective].larger_is_better else values


def difference(ours: np.ndarray, theirs: np.ndarray, objective: str, resamples: int = RESAMPLES) -> PairedDifference:
    """Paired difference of metrics f8[n] by seed, positive if ours is better; see `CellResult`."""
    gain = costs(theirs, objective) - costs(ours, objective)
    return paired(gain if OBJECTIVES[objective].larger_is_better else gain / theirs.mean(), resamples)


@dataclass(frozen=True, slots=True)
class RoleComparison:
    """The policy compared with another role over several cells.

    Attributes:
        cells: number of cells.
        wins: number of cells whose interval is above 0.
        ties: number of cells whose interval includes 0.
        losses: number of cells whose interval is below 0.
        reduction: interquartile mean over cells of the share of the cost (misses, latency) that is saved.
        improvement: probability that a run of the policy is better than a run of the role, mean over cells.
        paired_improvement: share of seeds in which the policy is better on the same requests, mean over cells.
    """

    cells: int
    wins: int
    ties: int
    losses: int
    reduction: Interval
    improvement: Interval
    paired_improvement: Interval


def compare_with_role(cells: Sequence[CellResult], role: str, resamples: int = RESAMPLES) -> RoleComparison:
    """Compare the policy with a role over cells of one objective.

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
    return RoleComparison(
        cells=len(cells),
        wins=verdicts.count("win"),
        ties=verdicts.count("tie"),
        losses=verdicts.count("loss"),
        reduction=stratified(pairs, reduction, interquartile_mean, resamples),
        improvement=stratified(pairs, improvement, mean_over_cells, resamples),
        paired_improvement=stratified(pairs, paired_improvement, mean_over_cells, resamples),
    )


def compared_roles(cells: Sequence[CellResult]) -> list[str]:
    """The roles of these cells that the policy is compared with."""
    return [role for role in (TUNED, FOUR_KNOBS, INDEX, PAUSING_INDEX, STATIC) if role in cells[0].runs]


def by_objective(cells: Sequence[CellResult]) -> dict[str, list[CellResult]]:
    """The cells by objective, in their order."""
    return {name: [c for c in cells if c.objective == name] for name in dict.fromkeys(c.objective for c in cells)}


def role_of(name: str) -> str:
    """The role of an additional policy, which is compared in the same way as the first."""
    return f"{POLICY} {name}"


def additional_policies(cells: Sequence[CellResult]) -> dict[str, list[CellResult]]:
    """The same cells with each additional policy as the policy, by its name; all of one objective."""
    start = role_of("")
    return {role.removeprefix(start): _recast(cells, POLICY, role) for role in cells[0].runs if role.startswith(start)}


def against_four_knobs(cells: Sequence[CellResult]) -> list[CellResult]:
    """The same cells with the best baseline within four knobs as best tuned baseline; empty without that role."""
    return _recast(cells, TUNED, FOUR_KNOBS) if FOUR_KNOBS in cells[0].runs else []


def _recast(cells: Sequence[CellResult], part: str, role: str) -> list[CellResult]:
    """The cells with one role in the part of another."""
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


def significantly_worse(cells: Sequence[CellResult]) -> list[str]:
    """Names of the cells where the policy is significantly worse (paired t-test, Holm over all cells, 5 %)."""
    adjusted = holm([cell.difference.p for cell in cells])
    return [cell.name for cell, p in zip(cells, adjusted, strict=True) if cell.difference.mean < 0 and p < 0.05]


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim about a policy.

    Attributes:
        text: the claim.
        found: the numbers.
        reached: whether they support it.
    """

    text: str
    found: str
    reached: bool


def all_claims(cells: Sequence[CellResult], resamples: int = RESAMPLES) -> list[Claim]:
    """`claims` of the policy, of additional policies, and against baselines within four knobs only."""
    four_knobs = against_four_knobs(cells)
    others = additional_policies(cells) | ({"baselines of four knobs": four_knobs} if four_knobs else {})
    return claims(cells, resamples) + [
        replace(claim, text=f"{name}: {claim.text}") for name, own in others.items() for claim in claims(own, resamples)
    ]


def claims(cells: Sequence[CellResult], resamples: int = RESAMPLES) -> list[Claim]:
    """The claims about SLO attainment or mean latency; all cells of one objective."""
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
        Claim(
            f"better than the best tuned baseline, 95 % interval above 0, on at least 80 % of the {where}",
            f"{wins} of {len(open_cells)} ({share:.0%})" if open_cells else "no such cell",
            share >= 0.8,
        ),
        Claim(
            "significantly worse on no cell (paired t-test, Holm over all cells, 5 %)",
            f"{len(lost)} of {len(cells)}" + (f": {'; '.join(lost)}" if lost else ""),
            not lost,
        ),
    ]
    if rising:
        found.append(
            Claim(
                "nowhere worse than by 0.002",
                f"worst {worst.difference.mean:+.4f}, {worst.name}",
                worst.difference.mean >= -0.002,
            )
        )
    least, what = (0.10, "misses") if rising else (0.05, "mean E2E latency")
    if open_cells:
        saved = stratified(
            [(c.costs(POLICY), c.costs(TUNED)) for c in open_cells], reduction, interquartile_mean, resamples
        )
        text = f"{saved.value:.1%} [{saved.low:.1%}, {saved.high:.1%}]"
        found.append(
            Claim(
                f"{what} at least {least:.0%} lower in the interquartile mean over {where}", text, saved.value >= least
            )
        )
    return found
