"""The best baseline of a cell for an objective: all screened at their defaults, the best of them tuned.

Beside it the best of given settings of the static index policy, of one group of them or several.
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
_SCHEDULERS = ("best", "alike", "default")  # of what was found
_NOTHING_TO_GAIN = {"slo_attainment": 1.0}
_MORE_SEEDS = 9  # on which those that leave nothing to gain are told apart


@dataclass(frozen=True, slots=True)
class Plan:
    """How hard baselines are tuned.

    Attributes:
        schedulers: the baselines, by name.
        always: names of those that are tuned for SLO attainment however good their defaults are.
        index: settings of the static index policy to choose from, by objective and by what a group of them is called;
            the first of each is as it comes.
        seeds: tuning seeds.
        trials: settings of each scheduler that is tuned, by objective.
        alike: names of those that turn no more knobs than the policy; the best of them is tuned in any case.
    """

    schedulers: Mapping[str, Scheduler]
    always: Sequence[str]
    index: Mapping[str, Mapping[str, Sequence[Scheduler]]]
    seeds: Sequence[int]
    trials: Mapping[str, int]
    alike: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What the search of a cell found, by values on the tuning seeds.

    Attributes:
        best: the winner: a baseline with its best parameters.
        value: its objective.
        alike: the winner of those that turn no more knobs than the policy; that of all if the plan names none.
        alike_value: its objective.
        default: the best baseline at its defaults.
        defaults: objective by name of every baseline at its defaults.
        values: objective by name of every baseline that was tuned, after it.
        index: the static index policy with the best settings of each group, by its name.
        index_values: their objectives.
    """

    best: Scheduler
    value: float
    alike: Scheduler
    alike_value: float
    default: Scheduler
    defaults: dict[str, float]
    values: dict[str, float]
    index: dict[str, Scheduler]
    index_values: dict[str, float]

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
        record |= {name: _values_of(record[name]) for name in _SCHEDULERS}
        return record | {"index": {name: _values_of(setting) for name, setting in self.index.items()}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], schedulers: Mapping[str, Scheduler]) -> Self:
        """Read what `record` wrote, with schedulers by name."""
        bound: dict[str, Any] = {name: _bound(record[name], schedulers) for name in _SCHEDULERS}
        bound["index"] = {name: _bound(setting, schedulers) for name, setting in record["index"].items()}
        return cls(**{**record, **bound})


def find(cell: Cell, objective: str, plan: Plan, folder: Path, say: Callable[[str], None] = lambda text: None) -> Found:
    """Search the best baseline of a cell; what was found before is read, what was begun goes on.

    Where a baseline meets all targets at its defaults nothing but the best one alike is tuned: there is nothing to
    gain. Of several that do, the best on further tuning seeds is taken.

    Args:
        cell: where.
        objective: a name of `OBJECTIVES`.
        plan: which schedulers, and how hard.
        folder: for the files.
        say: is told what is being done.
    """
    path = folder / "found" / f"{_name(cell, objective, plan)}.json"
    if path.exists():
        named = {**plan.schedulers, **{group[0].name: group[0] for group in plan.index[objective].values()}}
        return Found.from_record(json.loads(path.read_text(encoding="utf-8")), named)
    goal, runs = OBJECTIVES[objective], KeptRuns(cell, plan.seeds, folder)
    say("defaults")
    values = dict(zip(plan.schedulers, runs.values(list(plan.schedulers.values()), objective), strict=True))
    ranked = _ranked(values, cell, objective, plan, folder)
    similar = [name for name in ranked if name in plan.alike] or ranked
    fields = (ranked, similar)
    best = [(plan.schedulers[names[0]], values[names[0]]) for names in fields]
    after: dict[str, float] = {}
    for name in _to_tune(ranked, similar, values, objective, plan):
        say(f"tuning {name}")
        tuned = _tuned(plan.schedulers[name], cell, objective, plan.trials[objective], plan.seeds, folder)
        after[name] = tuned.value
        for k, names in enumerate(fields):
            if name in names and goal.score(tuned.value) > goal.score(best[k][1]):
                best[k] = (tuned.scheduler, tuned.value)
    index: dict[str, Scheduler] = {}
    index_values: dict[str, float] = {}
    for name, settings in plan.index[objective].items():
        say(name)
        reached = runs.values(settings, objective)
        k = max(range(len(settings)), key=lambda k: goal.score(reached[k]))
        index[name], index_values[name] = settings[k], reached[k]
    default = plan.schedulers[ranked[0]]
    found = Found(*best[0], *best[1], default, values, after, index, index_values)
    write_json(path, found.record(), indent=1)
    return found


def _ranked(values: Mapping[str, float], cell: Cell, objective: str, plan: Plan, folder: Path) -> list[str]:
    """Names by their values on the tuning seeds, the best first.

    Those that leave nothing to gain there are ordered by further seeds, and where that does not tell them apart by the
    99th percentile of the TTFT: on three seeds a plain system can be lucky.
    """
    goal, late = OBJECTIVES[objective], OBJECTIVES["p99_ttft"]
    leaders = [name for name, value in values.items() if value == _NOTHING_TO_GAIN.get(objective)]
    second = dict.fromkeys(values, (0.0, 0.0))
    if len(leaders) > 1:
        first = max(plan.seeds) + 1
        more = KeptRuns(cell, range(first, first + _MORE_SEEDS), folder)
        schedulers = [plan.schedulers[name] for name in leaders]
        found = zip(more.values(schedulers, objective), more.values(schedulers, "p99_ttft"), strict=True)
        second |= {name: (goal.score(a), late.score(b)) for name, (a, b) in zip(leaders, found, strict=True)}
    return sorted(values, key=lambda name: (goal.score(values[name]), second[name]), reverse=True)


def _to_tune(
    ranked: Sequence[str], similar: Sequence[str], values: Mapping[str, float], objective: str, plan: Plan
) -> list[str]:
    """The best at their defaults, those that always are, and the best alike, unless there is nothing to gain."""
    most = _NOTHING_TO_GAIN.get(objective)
    chosen: set[str] = set()
    if values[ranked[0]] != most:
        always = plan.always if objective == "slo_attainment" else ()
        chosen |= {*_distinct(ranked, values)[: KEPT[objective]], *always}
    if values[similar[0]] != most:
        chosen.add(similar[0])
    return [name for name in plan.schedulers if name in chosen and tunable(plan.schedulers[name])]


def _distinct(ranked: Sequence[str], value_of: Mapping[str, float]) -> list[str]:
    """Without those that equal one before them: without predictions several schedulers are the same rule."""
    return list({value_of[name]: name for name in reversed(ranked)}.values())[::-1]


def _tuned(scheduler: Scheduler, cell: Cell, objective: str, trials: int, seeds: Sequence[int], folder: Path) -> Tuned:
    more: dict[str, Any] = {"load": cell.load, "seeds": seeds, "trials": trials, "folder": folder, "progress": False}
    return tune(scheduler, cell.workload, cell.engine, objective, **more)


def _name(cell: Cell, objective: str, plan: Plan) -> str:
    settings = [(name, [scheduler_digest(s) for s in group]) for name, group in plan.index[objective].items()]
    spaces = [sorted((name, param.tune) for name, param in tunable(s).items()) for s in plan.schedulers.values()]
    code = [source_of(part) for part in (find, search, tune, type(OBJECTIVES[objective]))]
    requests = distinct_seeds(cell.workload, plan.seeds)
    what = (
        [scheduler_digest(scheduler) for scheduler in plan.schedulers.values()],
        settings,
        spaces,
        plan.always,
        plan.alike,
        plan.trials[objective],
        requests,
        cell.engine,
        cell.load,
    )
    return file_name(cell.site, load_text(cell.load), objective, digest_of(code, *what))


def _values_of(scheduler: Scheduler) -> dict[str, Any]:
    return {"name": scheduler.name, "values": dict(scheduler.values)}


def _bound(record: Mapping[str, Any], schedulers: Mapping[str, Scheduler]) -> Scheduler:
    scheduler = schedulers[record["name"]]
    return scheduler(**record["values"]) if record["values"] else scheduler
