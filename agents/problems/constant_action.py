"""The best constant action: what an agent that looks at nothing could reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from agents.learning_curve import STATIC_BEST
from agents.problems.judge import Judge
from llmsched_env.envs.actions import Actions
from llmsched_env.envs.batch_queue import ORDERS, Knobs
from llmsched_env.envs.index_policy import IndexNumbers
from llmsched_env.evaluation.search import Values, search
from llmsched_env.simulator.scheduler import Linear, Param, Scheduler

_SCREENING_SEEDS, _FINALISTS_SHARE = 2, 8  # as of rivals: on two seeds, and an eighth of what was tried on all
_FINALISTS = 8  # at least


@dataclass(frozen=True, slots=True)
class BestConstant:
    """The outcome of a search.

    Attributes:
        scheduler: what the best action makes of the environment's scheduler, named "static_best".
        action: the best one.
        value: its objective on the tuning runs.
        note: where it comes from, for reports.
        finalists: the best actions, the winner first.
    """

    scheduler: Scheduler
    action: np.ndarray
    value: float
    note: str
    finalists: tuple[np.ndarray, ...]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {"value": self.value, "note": self.note, "finalists": [action.tolist() for action in self.finalists]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], actions: Actions) -> BestConstant:
        """Of what `record` gave."""
        finalists = tuple(np.array(action, actions.space.dtype) for action in record["finalists"])
        return cls(
            replace(scheduler_of(actions, finalists[0], STATIC_BEST), reference=record["note"]),
            finalists[0],
            record["value"],
            record["note"],
            finalists,
        )


def scheduler_of(actions: Actions, action: np.ndarray, name: str) -> Scheduler:
    """The scheduler of an agent that always takes one action."""
    values = dict(zip(actions.scheduler.params, actions.params(np.asarray(action)).tolist(), strict=True))
    return replace(actions.scheduler(**values), name=name)


def neutral_action(actions: Actions) -> np.ndarray | None:
    """The action without preferences: 0 in the middle of a box, of the knobs first come first served; None: unknown."""
    if isinstance(actions, Knobs):
        default = actions.scheduler.params["token_budget"].default
        known = default in actions.token_budgets and np.inf in actions.admission_limits
        return actions.encode() if known else None
    if hasattr(actions, "neutral"):
        return np.asarray(actions.neutral)
    return actions.encode() if isinstance(actions, IndexNumbers) else None


def best_constant(actions: Actions, judge: Judge, trials: int) -> BestConstant:
    """Search the constant action that is best on all runs together.

    Of the knobs token budget x queue order is searched, with the admission limit at its highest level and no hold; of
    arms all; of a box `trials` actions, by the tuner's own search from the neutral one. All are tried on the first two
    seeds of every workload, the best eighth of them on all seeds, and the best there wins.

    Args:
        actions: what they mean.
        judge: of the tuning runs.
        trials: actions to try of a box.
    """
    tried = _tried(actions, judge.first(_SCREENING_SEEDS), trials)
    settings = [
        scheduler_of(actions, action, STATIC_BEST) for action in tried[: max(_FINALISTS, trials // _FINALISTS_SHARE)]
    ]
    ranked = judge.ranked(settings)
    finalists = tuple(tried[place] for place, _ in ranked)
    best = settings[ranked[0][0]]
    values = ", ".join(f"{name}={_text(name, value)}" for name, value in _own(actions, best).items())
    note = f"best of {len(tried)} constant actions by {judge.objective.name} on tuning seeds, all loads: {values}"
    return BestConstant(replace(best, reference=note), finalists[0], ranked[0][1], note, finalists)


def _own(actions: Actions, setting: Scheduler) -> dict[str, float]:
    """Of the parameters of a setting those that are not the scheduler's defaults."""
    params = actions.scheduler.params
    return {name: value for name, value in setting.values.items() if value != params[name].default} or {
        name: setting.values[name] for name in list(params)[:1]
    }


def _text(name: str, value: float) -> str:
    return ORDERS[int(value)] if name == "order" else f"{value:.4g}"


def _tried(actions: Actions, judge: Judge, trials: int) -> list[np.ndarray]:
    """Actions that were tried, the best first."""

    def constants(tried: Sequence[np.ndarray]) -> list[Scheduler]:
        return [scheduler_of(actions, action, STATIC_BEST) for action in tried]

    if isinstance(actions.space, Box):
        larger, start = judge.objective.larger_is_better, neutral_action(actions)
        return searched(actions.space, lambda tried: judge.values(constants(tried)), trials, larger, start)
    candidates = _candidates(actions)
    return [candidates[place] for place, _ in judge.ranked(constants(candidates))]


def _candidates(actions: Actions) -> list[np.ndarray]:
    if isinstance(actions, Knobs):
        limit = actions.admission_limits[-1]
        return [actions.encode(budget, limit, order) for budget, order in product(actions.token_budgets, ORDERS)]
    space = actions.space
    assert isinstance(space, Discrete)
    return [np.array(k) for k in range(int(space.n))]


def searched(
    space: Box | MultiDiscrete,
    worth: Callable[[list[np.ndarray]], list[float]],
    trials: int,
    larger_is_better: bool,
    start: np.ndarray | None = None,
) -> list[np.ndarray]:
    """`trials` actions that the tuner's search tries, the best first; of equals the earlier.

    Args:
        space: of the actions.
        worth: values of actions.
        trials: how many to try.
        larger_is_better: the direction of the values.
        start: the first one; None: the middle of a box, the lowest levels else.
    """
    if isinstance(space, Box):
        low, high = space.low, space.high
        first = 0.5 * (low + high) if start is None else start
        tunes: list[Linear | tuple[float, ...]] = [
            Linear(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True)
        ]
    else:
        low, high = np.zeros(len(space.nvec)), space.nvec - 1
        first = low if start is None else start
        tunes = [tuple(map(float, range(n))) for n in space.nvec.tolist()]
    places = zip(first.tolist(), low.tolist(), high.tolist(), tunes, strict=True)
    params = {str(k): Param(own, a, b, tune=tune) for k, (own, a, b, tune) in enumerate(places)}

    def action_of(values: Values) -> np.ndarray:
        return np.array([values[name] if values else param.default for name, param in params.items()], space.dtype)

    def evaluate(settings: Sequence[Values]) -> list[float]:
        return worth([action_of(values) for values in settings])

    tried = [pair for batch in search(params, evaluate, trials, larger_is_better) for pair in batch]
    tried.sort(key=lambda pair: -pair[1] if larger_is_better else pair[1])
    return [action_of(values) for values, _ in tried]
