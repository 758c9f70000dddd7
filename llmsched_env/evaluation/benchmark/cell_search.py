"""The best baseline of a cell for an objective: all screened at their defaults, the best of them tuned.

Beside it the static index policy, tuned with as many simulations as all baselines of the cell had together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from llmsched_env.evaluation.benchmark.cells import Cell
from llmsched_env.evaluation.benchmark.kept_runs import KeptRuns
from llmsched_env.evaluation.cell import load_text
from llmsched_env.evaluation.identity import digest_of, distinct_seeds, file_name, scheduler_digest, source_of
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.evaluation.search import search
from llmsched_env.evaluation.tuning import Tuned, tunable, tune
from llmsched_env.json_files import write_json
from llmsched_env.simulator.scheduler import Scheduler

KEPT = {"slo_attainment": 3, "mean_e2el": 3, "p99_ttft": 2}  # schedulers that are tuned, the best at their defaults
_SCHEDULERS = ("best", "alike", "default", "index")  # of what was found
_NOTHING_TO_GAIN = {"slo_attainment": 1.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """How hard baselines are tuned.

    Attributes:
        schedulers: the baselines, by name.
        always: names of those that are tuned for SLO attainment however good their defaults are.
        index: the static index policy.
        seeds: tuning seeds.
        trials: settings of each scheduler that is tuned, by objective.
        index_trials: settings of the index policy at most, else as many as give it the simulations of all baselines.
        alike: names of those that turn no more knobs than the policy; the best of them is tuned in any case.
    """

    schedulers: Mapping[str, Scheduler]
    always: Sequence[str]
    index: Scheduler
    seeds: Sequence[int]
    trials: Mapping[str, int]
    index_trials: int = 300
    alike: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What the search of a cell found, by values on the tuning seeds.

    Attributes:
        best: the winner: a baseline with its best parameters.
        value: its objective.
        alike: the winner of those that turn no more knobs than the policy; the index policy if the plan names none.
        alike_value: its objective.
        default: the best baseline at its defaults.
        defaults: objective by name of every baseline at its defaults.
        values: objective by name of every baseline that was tuned, after it.
        index: the static index policy with its best parameters.
        index_value: its objective.
        simulations: of all baselines together.
        index_simulations: of the static index policy.
    """

    best: Scheduler
    value: float
    alike: Scheduler
    alike_value: float
    default: Scheduler
    defaults: dict[str, float]
    values: dict[str, float]
    index: Scheduler
    index_value: float
    simulations: int
    index_simulations: int

    @property
    def default_value(self) -> float:
        """Objective of the best baseline at its defaults."""
        return self.defaults[self.default.name]

    @property
    def was_tuned(self) -> bool:
        """False where a default left nothing to gain."""
        return bool(self.values)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        record = {name: getattr(self, name) for name in self.__slots__}
        for name in _SCHEDULERS:
            record[name] = {"name": record[name].name, "values": dict(record[name].values)}
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any], schedulers: Mapping[str, Scheduler]) -> Self:
        """Read what `record` wrote, with schedulers by name."""
        bound = {name: _bound(record[name], schedulers) for name in _SCHEDULERS}
        return cls(**{**record, **bound})


def find(cell: Cell, objective: str, plan: Plan, folder: Path, say: Callable[[str], None] = lambda text: None) -> Found:
    """Search the best baseline of a cell; what was found before is read, what was begun goes on.

    Where a baseline meets all targets at its defaults nothing is tuned: there is nothing to gain.

    Args:
        cell: where.
        objective: a name of `OBJECTIVES`.
        plan: which schedulers, and how hard.
        folder: for the files.
        say: is told what is being done.
    """
    named = {**plan.schedulers, plan.index.name: plan.index}
    path = folder / "found" / f"{_name(cell, objective, plan)}.json"
    if path.exists():
        return Found.from_record(json.loads(path.read_text(encoding="utf-8")), named)
    goal, runs = OBJECTIVES[objective], KeptRuns(cell, plan.seeds, folder)
    say("defaults")
    names = list(plan.schedulers)
    *values, index_value = runs.values([*plan.schedulers.values(), plan.index], objective)
    value_of = dict(zip(names, values, strict=True))
    ranked = sorted(names, key=lambda name: goal.score(value_of[name]), reverse=True)
    default = best = plan.schedulers[ranked[0]]
    value, simulations = value_of[ranked[0]], len(names) * len(runs.seeds)
    index, index_simulations = plan.index, len(runs.seeds)
    similar = [name for name in ranked if name in plan.alike]
    alike, alike_value = (plan.schedulers[similar[0]], value_of[similar[0]]) if similar else (index, index_value)
    after: dict[str, float] = {}
    if value != _NOTHING_TO_GAIN.get(objective):
        always = plan.always if objective == "slo_attainment" else ()
        best_ones = _distinct(ranked, value_of)[: KEPT[objective]]
        chosen = [name for name in names if name in {*best_ones, *always, *similar[:1]}]
        for name in chosen:
            if not tunable(plan.schedulers[name]):
                continue
            say(f"tuning {name}")
            tuned = _tuned(plan.schedulers[name], cell, objective, plan.trials[objective], plan.seeds, folder)
            after[name] = tuned.value
            simulations += tuned.provenance["simulations"]
            if goal.score(tuned.value) > goal.score(value):
                best, value = tuned.scheduler, tuned.value
            if name in similar and goal.score(tuned.value) > goal.score(alike_value):
                alike, alike_value = tuned.scheduler, tuned.value
        say(f"tuning {plan.index.name}")
        trials = min(plan.index_trials, max(1, simulations // len(runs.seeds)))
        tuned = _tuned(plan.index, cell, objective, trials, plan.seeds, folder)
        index, index_value, index_simulations = tuned.scheduler, tuned.value, tuned.provenance["simulations"]
    found = Found(
        best, value, alike, alike_value, default, value_of, after, index, index_value, simulations, index_simulations
    )
    write_json(path, found.record(), indent=1)
    return found


def _distinct(ranked: Sequence[str], value_of: Mapping[str, float]) -> list[str]:
    """Without those that equal one before them: without predictions several schedulers are the same rule."""
    return list({value_of[name]: name for name in reversed(ranked)}.values())[::-1]


def _tuned(scheduler: Scheduler, cell: Cell, objective: str, trials: int, seeds: Sequence[int], folder: Path) -> Tuned:
    more: dict[str, Any] = {"load": cell.load, "seeds": seeds, "trials": trials, "folder": folder, "progress": False}
    return tune(scheduler, cell.workload, cell.engine, objective, **more)


def _name(cell: Cell, objective: str, plan: Plan) -> str:
    schedulers = [scheduler_digest(scheduler) for scheduler in (*plan.schedulers.values(), plan.index)]
    spaces = [
        sorted((name, param.tune) for name, param in tunable(s).items())
        for s in (*plan.schedulers.values(), plan.index)
    ]
    code = [source_of(part) for part in (find, search, tune, type(OBJECTIVES[objective]))]
    requests = distinct_seeds(cell.workload, plan.seeds)
    what = (
        schedulers,
        spaces,
        plan.always,
        plan.alike,
        plan.trials[objective],
        plan.index_trials,
        requests,
        cell.engine,
        cell.load,
    )
    return file_name(cell.site, load_text(cell.load), objective, digest_of(code, *what))


def _bound(record: Mapping[str, Any], schedulers: Mapping[str, Scheduler]) -> Scheduler:
    scheduler = schedulers[record["name"]]
    return scheduler(**record["values"]) if record["values"] else scheduler
