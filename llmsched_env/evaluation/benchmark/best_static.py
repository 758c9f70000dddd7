"""The one setting that is best over all cells: what a user without time to tune could choose once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from llmsched_env.evaluation.benchmark.cell_search import Found
from llmsched_env.evaluation.benchmark.cells import Cell
from llmsched_env.evaluation.benchmark.kept_runs import KeptRuns
from llmsched_env.evaluation.identity import describe
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.simulator.scheduler import Scheduler

CANDIDATES = 20  # settings that cells were tuned to, beside all defaults


def best_static(
    objective: str,
    cells: Sequence[Cell],
    found: Sequence[Found],
    defaults: Sequence[Scheduler],
    seeds: Sequence[int],
    folder: Path,
) -> Scheduler:
    """The scheduler with the best mean over all cells on the tuning seeds.

    The mean is that of the objective if large is good, and of its logarithm (the geometric mean) if it is a latency,
    which differs by orders of magnitude from cell to cell. Candidates are all defaults, and of the winners of the cells
    those that gained most over the best default of their cell.
    """
    candidates = [*defaults, *_winners(objective, found)]
    scores = np.array([_scores(objective, cell, candidates, seeds, folder) for cell in cells])
    return candidates[int(np.argmax(scores.mean(axis=0)))]


def _winners(objective: str, found: Sequence[Found]) -> list[Scheduler]:
    goal = OBJECTIVES[objective]
    by_gain = sorted(
        (outcome for outcome in found if outcome.best.values),
        key=lambda outcome: (
            _score(objective, goal.score(outcome.value)) - _score(objective, goal.score(outcome.default_value))
        ),
        reverse=True,
    )
    distinct: Mapping[str, Scheduler] = {describe(outcome.best): outcome.best for outcome in reversed(by_gain)}
    return list(distinct.values())[::-1][:CANDIDATES]


def _scores(
    objective: str, cell: Cell, schedulers: Sequence[Scheduler], seeds: Sequence[int], folder: Path
) -> list[float]:
    goal = OBJECTIVES[objective]
    return [
        _score(objective, goal.score(value)) for value in KeptRuns(cell, seeds, folder).values(schedulers, objective)
    ]


def _score(objective: str, score: float) -> float:
    return score if OBJECTIVES[objective].larger_is_better else -float(np.log(-score))
