"""The tuned static baseline: the best fixed setting of the knobs that the agent sets."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from llmsched_env.envs.batch_queue import ORDERS, Knobs, parametric
from llmsched_env.evaluation.cases import Cases
from llmsched_env.objectives import Objective
from llmsched_env.simulator.scheduler import Scheduler

_SCREENING_SEEDS = 1
_FINALISTS = 8


@dataclass(frozen=True, slots=True)
class StaticBest:
    """The outcome of a search.

    Attributes:
        scheduler: `parametric` with the best values, named "static_best".
        token_budget: its token budget.
        order: its queue order.
        value: its mean of the objective's metric on the tuning runs.
        note: where the setting comes from, for reports.
        finalists: (token budget, queue order) of the best settings, the winner first.
    """

    scheduler: Scheduler
    token_budget: int
    order: str
    value: float
    note: str
    finalists: tuple[tuple[int, str], ...]


def tune_static(cases: Cases, knobs: Knobs, objective: Objective) -> StaticBest:
    """Search token budget x queue order, with the admission limit at its highest level and no hold.

    All settings run on the first seed of every workload; the best of them on all seeds, and the best there wins.

    Args:
        cases: the tuning runs.
        knobs: the levels to search.
        objective: what to optimise.
    """
    settings = [
        {
            "token_budget": budget,
            "max_num_active_seqs": knobs.admission_limits[-1],
            "order": ORDERS.index(order),
        }
        for budget, order in product(knobs.token_budgets, ORDERS)
    ]
    finalists = _best(settings, cases.first(_SCREENING_SEEDS), objective)[:_FINALISTS]
    ranked = _best([values for values, _ in finalists], cases, objective)
    winner, value = ranked[0]
    order = ORDERS[winner["order"]]
    note = (
        f"best of {len(settings)} fixed settings (token budget x queue order) by {objective.metric} on tuning seeds: "
        f"token_budget={winner['token_budget']:g}, order={order}"
    )
    scheduler = replace(parametric(**winner), name="static_best", reference=note)
    best = tuple((int(values["token_budget"]), ORDERS[values["order"]]) for values, _ in ranked)
    return StaticBest(scheduler, int(winner["token_budget"]), order, value, note, best)


def _best(settings: list[dict[str, Any]], cases: Cases, objective: Objective) -> list[tuple[dict[str, Any], float]]:
    """Settings with their mean metric, best first; ties go to the earlier one."""
    means = cases.means([parametric(**values) for values in settings], objective.metric)
    return sorted(zip(settings, means.tolist(), strict=True), key=lambda pair: -objective.score(pair[1]))
