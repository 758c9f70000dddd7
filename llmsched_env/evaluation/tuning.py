"""The best parameters of a scheduler for an objective, on tuning seeds of one workload at one load."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from llmsched_env.evaluation.cases import TUNING_SEEDS, Cases, Load, load_text, seed_range
from llmsched_env.evaluation.run_cache import (
    digest_of,
    distinct_seeds,
    file_name,
    scheduler_digest,
    source_of,
    versions,
)
from llmsched_env.evaluation.search import Values, search
from llmsched_env.files import read_object_if_exists, write_json
from llmsched_env.machine.config import EngineConfig
from llmsched_env.objectives import OBJECTIVES, Objective
from llmsched_env.results.metrics import summary
from llmsched_env.results.records import Result
from llmsched_env.simulator.scheduler import Param, Scheduler
from llmsched_env.slo import SLO
from llmsched_env.tables.task_table import requests_of
from llmsched_env.theory import capacity
from llmsched_env.validation import check_choice, check_integer, check_number
from llmsched_env.workloads.closed_loop import ClosedLoop
from llmsched_env.workloads.workload import Workload

TRIALS = 60
SEEDS = 5

_PATIENCE = 10  # a run may take this many times as long as expected, see `longest_run`

Runs = tuple[tuple[float, float], ...]
"""(metric, share of requests within their TPOT target) of each seed, see `Objective.of_run`."""

SettingKey = tuple[tuple[str, float], ...]
"""The values of a setting, sorted by name."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting that was tried.

    Attributes:
        values: of the tuned parameters; empty: the defaults.
        value: the objective over all runs.
        runs: the metric and TPOT share of each seed.
    """

    values: Values
    value: float
    runs: Runs


@dataclass(frozen=True, slots=True)
class Tuned:
    """The outcome of a search.

    Attributes:
        scheduler: with the best values bound; with default parameters if nothing was better.
        objective: what was optimised.
        trials: all settings that were tried, the defaults first.
        provenance: everything that the setting depends on, as in the file.
        file: the file with the trials; None if nothing was kept.
    """

    scheduler: Scheduler
    objective: Objective
    trials: tuple[Trial, ...]
    provenance: dict[str, Any]
    file: Path | None = None

    @property
    def best(self) -> Trial:
        """The best trial; of equals the earliest."""
        return _best(self.trials, self.objective)

    @property
    def value(self) -> float:
        """Objective of the best trial on the tuning seeds."""
        return self.best.value

    @property
    def default_value(self) -> float:
        """Objective of the default parameters on the same seeds."""
        return self.trials[0].value

    @property
    def note(self) -> str:
        """One sentence for reports."""
        values, seeds = self.best.values, self.provenance["seeds"]
        setting = ", ".join(f"{name}={value:g}" for name, value in values.items()) or "default parameters"
        on = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else "one trace"
        return (
            f"{setting}: best of {len(self.trials)} settings by {self.objective.name} on {self.provenance['workload']} "
            f"at load {load_text(self.provenance['load'])}, {on}: {self.objective.text(self.value)}, with default "
            f"parameters {self.objective.text(self.default_value)}"
        )


def tunable(scheduler: Scheduler) -> dict[str, Param]:
    """The parameters that `tune` varies: those with `Param.tune` that are not bound."""
    if scheduler.controller is not None:
        return {}
    return {n: param for n, param in scheduler.params.items() if param.tune is not None and n not in scheduler.values}


def tune(
    scheduler: Scheduler,
    workload: Workload | ClosedLoop,
    engine: EngineConfig,
    objective: str = "slo_attainment",
    *,
    load: Load = "recorded",
    seeds: Sequence[int] = seed_range(TUNING_SEEDS, SEEDS),
    trials: int = TRIALS,
    slo: SLO | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Tuned:
    """Search the parameters of `scheduler` that are best for `objective`.

    The default parameters are the first trial, so the outcome is never worse on the tuning seeds. Bound parameters stay
    fixed. The same arguments give the same outcome.

    Runs drain. A run is stopped after ten times the expected time: that of the arrivals, of all work at the reference
    capacity, and of the longest request alone, one after the other. Unfinished requests then count as missed, with a
    latency of that time. So do requests that are rejected or time out.

    With a `folder`, all trials are kept in `folder/tuned` with their provenance. The name of the file has a digest of
    everything that determines them except the number of trials. So an interrupted search continues where it stopped,
    a finished one is read, and one with more trials continues it.

    Args:
        scheduler: what to tune.
        workload: where requests come from.
        engine: the machine.
        objective: a name of `OBJECTIVES`.
        load: fraction of the reference capacity; "recorded" leaves the workload at its own rate.
        seeds: tuning seeds, disjoint from the test seeds; a workload with the same requests for every seed (a trace)
            runs once.
        trials: number of settings to try.
        slo: limits for all requests; None: each request's own.
        folder: where to keep trials; None: nowhere.
        progress: show a progress bar.

    Raises:
        ValueError: if the scheduler has no parameter to tune, the objective is unknown or needs limits that the
            requests do not have, or a number is out of its range.
    """
    goal = OBJECTIVES[check_choice("objective", objective, OBJECTIVES)]
    params = tunable(scheduler)
    if not params:
        raise ValueError(f"scheduler {scheduler.name!r} has no parameter to tune that is not bound")
    check_integer("trials", trials, at_least=1)
    if not len(seeds):
        raise ValueError("seeds is empty; at least one is needed")
    offered = workload if load == "recorded" else workload.at_load(check_number("load", load, above=0), engine)
    distinct, requests = distinct_seeds(offered, seeds, engine)
    _check_limits(goal, offered, distinct[0], slo)
    longest = longest_run(offered, engine, distinct)
    cases = Cases((offered,), distinct, engine, longest, record="requests")
    runs = _TrialRuns(scheduler, cases, goal, slo, longest)
    if folder is not None:
        code = [version("optuna"), *(source_of(part) for part in (tune, search, Objective, summary, capacity))]
        space = [(name, param.tune) for name, param in params.items()]
        digest = digest_of(code, requests, scheduler_digest(scheduler), space, engine, distinct, slo, goal)
        name = file_name(scheduler.name, offered.name, load_text(load), goal.name, digest)
        runs.open(Path(folder) / "tuned" / f"{name}.json")
    done: list[Trial] = []
    with tqdm(total=trials, unit="trial", leave=False, disable=None if progress else True) as bar:
        for batch in search(params, runs.values, trials, goal.larger_is_better):
            done += [Trial(values, value, runs.by_setting[_key(values)]) for values, value in batch]
            runs.write(_provenance(runs, load, done))
            bar.update(len(batch))
            bar.set_postfix_str(f"best {goal.text(_best(done, goal).value)}")
    best = _best(done, goal).values
    return Tuned(
        scheduler=scheduler(**best) if best else scheduler,
        objective=goal,
        trials=tuple(done),
        provenance=_provenance(runs, load, done),
        file=runs.path,
    )


def tune_all(
    schedulers: Mapping[str, Scheduler],
    workloads: Mapping[str, Workload | ClosedLoop],
    loads: Sequence[Load],
    engine: EngineConfig,
    objective: str = "slo_attainment",
    *,
    progress: bool = True,
    **more: Any,
) -> dict[str, dict[tuple[str, Load], Tuned]]:
    """`tune` every scheduler that has parameters to tune, for every workload at every load.

    Returns:
        By the name of the scheduler, then by (workload, load).
    """
    jobs = [
        (name, workload, load)
        for name, workload, load in product(schedulers, workloads, loads)
        if tunable(schedulers[name])
    ]
    found: dict[str, dict[tuple[str, Load], Tuned]] = {}
    with tqdm(jobs, unit="search", dynamic_ncols=True, disable=None if progress else True) as bar:
        for name, workload, load in bar:
            bar.set_description(f"tuning {name} on {workload} at {load_text(load)}")
            tuned = tune(schedulers[name], workloads[workload], engine, objective, load=load, progress=progress, **more)
            found.setdefault(name, {})[workload, load] = tuned
    return found


@dataclass(slots=True)
class _TrialRuns:
    """The runs of all settings that were tried, in memory and, once opened, in a file."""

    scheduler: Scheduler
    cases: Cases
    objective: Objective
    slo: SLO | None
    longest: float
    by_setting: dict[SettingKey, Runs] = field(default_factory=dict)
    path: Path | None = None
    written: int = 0
    date: str = ""

    def open(self, path: Path) -> None:
        """Continue from a file, if it exists, and write to it."""
        self.path = path
        record = read_object_if_exists(path)
        if record:
            self.by_setting = {_key(t["values"]): tuple(map(tuple, t["runs"])) for t in record["trials"]}
            self.written, self.date = len(self.by_setting), record["date"]

    def values(self, settings: Sequence[Values]) -> list[float]:
        """The objective of settings; new ones are run on all seeds."""
        new = {_key(values): values for values in settings if _key(values) not in self.by_setting}
        if new:
            rows = self.cases.map([self.scheduler(**values) for values in new.values()], self._measure)
            self.by_setting.update(zip(new, map(tuple, rows), strict=True))
            self.date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return [self.objective.of_runs(self.by_setting[_key(values)], self.longest) for values in settings]

    def write(self, record: dict[str, Any]) -> None:
        """Replace the file, if there is a new trial."""
        if self.path is None or len(self.by_setting) == self.written:
            return
        write_json(self.path, record, indent=1)
        self.written = len(self.by_setting)

    def _measure(self, result: Result) -> tuple[float, float]:
        return self.objective.of_run(result, self.slo, self.longest)


def _provenance(runs: _TrialRuns, load: Load, trials: Sequence[Trial]) -> dict[str, Any]:
    """Everything that a setting depends on, and all trials."""
    workload, best = runs.cases.workloads[0], _best(trials, runs.objective)
    return {
        "scheduler": runs.scheduler.name,
        "bound": dict(runs.scheduler.values),
        "values": best.values,
        "objective": runs.objective.name,
        "metric": runs.objective.metric,
        "value": best.value,
        "default_value": trials[0].value,
        "workload": workload.name,
        "load": load,
        "rate": workload.rate,
        "slo": "each request's own" if runs.slo is None else repr(runs.slo),
        "engine": repr(runs.cases.engine),
        "seeds": list(runs.cases.seeds),
        "longest_run_s": runs.cases.horizon,
        "simulations": len({_key(trial.values) for trial in trials}) * len(runs.cases.seeds),
        "versions": versions() | {"optuna": version("optuna")},
        "date": runs.date,
        "trials": [asdict(trial) for trial in trials],
    }


def _best(trials: Sequence[Trial], objective: Objective) -> Trial:
    return max(trials, key=lambda trial: objective.score(trial.value))  # the first of equals


def _key(values: Values) -> SettingKey:
    return tuple(sorted(values.items()))


def longest_run(workload: Workload | ClosedLoop, engine: EngineConfig, seeds: Sequence[int]) -> float:
    """Time in s after which a run is stopped: ten times what a scheduler that keeps up needs, see `tune`."""
    rate, seconds, longest = capacity(engine, workload), engine.batch_time.seconds, 0.0
    for seed in seeds:
        table = requests_of(workload.sample(seed))
        if not len(table):
            raise ValueError(f"workload {workload.name!r} has no requests in seed {seed}; tuning needs some in each")
        prompt, output = table.prompt_tokens, table.output_tokens
        alone = seconds(prompt) + output * seconds(np.ones(len(table)), decode_kv_tokens=prompt + output)
        last, requests = table.arrival[-1], len(table)
        if isinstance(workload, ClosedLoop):
            if workload.duration is None and workload.tasks is None:
                raise ValueError(f"duration or tasks of {workload.name!r} must be given for tuning, got None for both")
            last, requests = workload.duration or 0.0, workload.tasks or len(table)
        longest = max(longest, float(last + requests / rate + alone.max()))
    return _PATIENCE * longest


def _check_limits(objective: Objective, workload: Workload | ClosedLoop, seed: int, slo: SLO | None) -> None:
    """Refuse an objective whose limits these requests do not have."""
    needed, table = objective.needs(), requests_of(workload.sample(seed))
    limits: dict[str, np.ndarray | float] = {"ttft": table.ttft_slo, "tpot": table.tpot_slo}
    if slo is not None:
        limits = {"ttft": slo.ttft, "tpot": slo.tpot, "e2el": slo.e2el}
    kinds = limits if needed == "any" else [needed]
    if needed and not any(np.isfinite(limits[kind]).any() for kind in kinds):
        what = "a TPOT target" if needed == "tpot" else "targets"
        raise ValueError(
            f"objective {objective.name!r} needs {what}, and the requests of {workload.name!r} have none; give slo"
        )
