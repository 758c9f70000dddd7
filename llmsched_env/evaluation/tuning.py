"""The best parameters of a scheduler for an objective, on tuning seeds of one workload at one load."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from llmsched_env.evaluation.cases import Cases
from llmsched_env.evaluation.cell import Load, load_text
from llmsched_env.evaluation.identity import (
    digest_of,
    distinct_seeds,
    file_name,
    scheduler_digest,
    source_of,
    versions,
)
from llmsched_env.evaluation.objective import OBJECTIVES, Objective
from llmsched_env.evaluation.search import Values, optuna, search
from llmsched_env.evaluation.seeds import TUNING_SEEDS, seed_range
from llmsched_env.json_files import write_json
from llmsched_env.simulator.metrics import summary
from llmsched_env.simulator.scheduler import Param, Scheduler
from llmsched_env.theory import capacity
from llmsched_env.validation import check_choice, check_integer, check_number

if TYPE_CHECKING:
    from llmsched_env.simulator.config import EngineConfig
    from llmsched_env.simulator.records import Result
    from llmsched_env.slo import SLO
    from llmsched_env.workloads.workload import Workload

TRIALS = 60
SEEDS = 5

_PATIENCE = 10  # a run may take that many times what it should, see `longest_run`

Runs = tuple[tuple[float, float], ...]
"""(metric, share of requests within their TPOT target) of each seed, see `Objective.of_run`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting that was tried.

    Attributes:
        values: of the tuned parameters; empty: the scheduler as it came.
        value: the objective over all runs.
        runs: what it is made of, for each seed.
    """

    values: Values
    value: float
    runs: Runs


@dataclass(frozen=True, slots=True)
class Tuned:
    """The outcome of a search.

    Attributes:
        scheduler: with the best values bound; as it came, if nothing was better.
        objective: what was optimised.
        trials: all settings that were tried, the scheduler as it came first.
        provenance: where the setting comes from, as it is kept in the file.
        file: where that is; None if nothing was kept.
    """

    scheduler: Scheduler
    objective: Objective
    trials: tuple[Trial, ...]
    provenance: dict[str, Any]
    file: Path | None = None

    @property
    def best(self) -> Trial:
        """The trial that won; of equals the earliest."""
        return _best(self.trials, self.objective)

    @property
    def value(self) -> float:
        """Objective of the winner on the tuning seeds."""
        return self.best.value

    @property
    def default_value(self) -> float:
        """Objective of the scheduler as it came on the same seeds."""
        return self.trials[0].value

    @property
    def note(self) -> str:
        """One sentence for reports."""
        values, seeds = self.best.values, self.provenance["seeds"]
        setting = ", ".join(f"{name}={value:g}" for name, value in values.items()) or "as it came"
        on = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else "one trace"
        return (
            f"{setting}: best of {len(self.trials)} settings by {self.objective.name} on {self.provenance['workload']} "
            f"at load {load_text(self.provenance['load'])}, {on}: {self.objective.text(self.value)}, as it came "
            f"{self.objective.text(self.default_value)}"
        )


def tunable(scheduler: Scheduler) -> dict[str, Param]:
    """The parameters that `tune` varies: those with values to try (`Param.tune`) that are not bound already."""
    if scheduler.controller is not None:
        return {}
    return {n: param for n, param in scheduler.params.items() if param.tune is not None and n not in scheduler.values}


def tune(
    scheduler: Scheduler,
    workload: Workload,
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

    The scheduler as it came is the first trial, so that the outcome is never worse on the tuning seeds. Parameters that
    are bound stay as they are. The same arguments give the same outcome.

    Runs drain. One that takes more than ten times as long as it should (the arrivals, all work at the reference
    capacity of the engine and the longest request alone, one after the other) is stopped: what is unfinished has missed
    its limits, and counts with a latency of that time. So do requests that are turned away or give up.

    With a `folder`, what was simulated is kept in `folder/tuned` with its provenance, in a file whose name holds a
    digest of all that determines it but the number of trials. So an interrupted search goes on where it stopped, one
    that was finished is found, and one with more trials goes on from it.

    Args:
        scheduler: what to tune.
        workload: where requests come from.
        engine: the machine.
        objective: a name of `OBJECTIVES`.
        load: fraction of the reference capacity; "recorded" leaves the workload at its own rate.
        seeds: tuning seeds, disjoint from those on which the outcome is judged; a workload that is the same for all of
            them (a trace) runs once.
        trials: how many settings to try.
        slo: limits for all requests; None: each request's own.
        folder: where to keep results; None keeps nothing.
        progress: whether to show a progress bar.

    Raises:
        ValueError: for a scheduler without parameters to tune, an unknown objective, one that needs limits where there
            are none, or a number out of its range.
        ImportError: if Optuna is not installed (`pip install "llmsched_env[tune]"`).
    """
    goal = OBJECTIVES[check_choice("objective", objective, OBJECTIVES)]
    params = tunable(scheduler)
    if not params:
        raise ValueError(f"scheduler {scheduler.name!r} has no parameter to tune that is not bound")
    check_integer("trials", trials, at_least=1)
    if not len(seeds):
        raise ValueError("seeds is empty; at least one is needed")
    offered = workload if load == "recorded" else workload.at_load(check_number("load", load, above=0), engine)
    distinct, requests = distinct_seeds(offered, seeds)
    _check_limits(goal, offered, distinct[0], slo)
    cases = Cases((offered,), distinct, engine, longest_run(offered, engine, distinct), record="requests")
    book = _Book(scheduler, cases, goal, slo)
    if folder is not None:
        code = [optuna().__version__, *(source_of(part) for part in (tune, search, Objective, summary, capacity))]
        space = [(name, param.tune) for name, param in params.items()]
        digest = digest_of(code, requests, scheduler_digest(scheduler), space, engine, distinct, slo, goal)
        name = file_name(scheduler.name, offered.name, load_text(load), goal.name, digest)
        book.open(Path(folder) / "tuned" / f"{name}.json")
    done: list[Trial] = []
    with tqdm(total=trials, unit="trial", leave=False, disable=not progress) as bar:
        for batch in search(params, book.values, trials, goal.larger_is_better):
            done += [Trial(values, value, book.runs[_key(values)]) for values, value in batch]
            book.write(_provenance(book, load, done))
            bar.update(len(batch))
            bar.set_postfix_str(f"best {goal.text(_best(done, goal).value)}")
    best = _best(done, goal).values
    return Tuned(scheduler(**best) if best else scheduler, goal, tuple(done), _provenance(book, load, done), book.path)


def tune_all(
    schedulers: Mapping[str, Scheduler],
    workloads: Mapping[str, Workload],
    loads: Sequence[Load],
    engine: EngineConfig,
    objective: str = "slo_attainment",
    *,
    progress: bool = True,
    **more: Any,
) -> dict[str, dict[tuple[str, Load], Tuned]]:
    """`tune` every scheduler that has something to tune for every workload at every load.

    Returns:
        By the name of the scheduler, then by (workload, load).
    """
    jobs = [
        (name, workload, load)
        for name, workload, load in product(schedulers, workloads, loads)
        if tunable(schedulers[name])
    ]
    found: dict[str, dict[tuple[str, Load], Tuned]] = {}
    with tqdm(jobs, unit="search", dynamic_ncols=True, disable=not progress) as bar:
        for name, workload, load in bar:
            bar.set_description(f"tuning {name} on {workload} at {load_text(load)}")
            tuned = tune(schedulers[name], workloads[workload], engine, objective, load=load, progress=progress, **more)
            found.setdefault(name, {})[workload, load] = tuned
    return found


@dataclass(slots=True)
class _Book:
    """What has been simulated, in memory and, once opened, in a file."""

    scheduler: Scheduler
    cases: Cases
    objective: Objective
    slo: SLO | None
    runs: dict[tuple, Runs] = field(default_factory=dict)
    path: Path | None = None
    written: int = 0
    date: str = ""

    def open(self, path: Path) -> None:
        """Go on from a file, if it is there, and write to it."""
        self.path = path
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            self.runs = {_key(t["values"]): tuple(map(tuple, t["runs"])) for t in record["trials"]}
            self.written, self.date = len(self.runs), record["date"]

    def values(self, settings: Sequence[Values]) -> list[float]:
        """The objective of settings; those that are new run on all seeds."""
        new = {_key(values): values for values in settings if _key(values) not in self.runs}
        if new:
            rows = self.cases.map([self.scheduler(**values) for values in new.values()], self._measure)
            self.runs.update(zip(new, map(tuple, rows), strict=True))
            self.date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return [self.objective.of_runs(np.array(self.runs[_key(values)]), self.cases.horizon) for values in settings]

    def write(self, record: dict[str, Any]) -> None:
        """Replace the file, if there is something new."""
        if self.path is None or len(self.runs) == self.written:
            return
        write_json(self.path, record, indent=1)
        self.written = len(self.runs)

    def _measure(self, result: Result) -> tuple[float, float]:
        return self.objective.of_run(result, self.slo, self.cases.horizon)


def _provenance(book: _Book, load: Load, trials: Sequence[Trial]) -> dict[str, Any]:
    """All that says where a setting comes from."""
    workload, best = book.cases.workloads[0], _best(trials, book.objective)
    return {
        "scheduler": book.scheduler.name,
        "bound": dict(book.scheduler.values),
        "values": best.values,
        "objective": book.objective.name,
        "metric": book.objective.metric,
        "value": best.value,
        "default_value": trials[0].value,
        "workload": workload.name,
        "load": load,
        "rate": workload.rate,
        "slo": "each request's own" if book.slo is None else repr(book.slo),
        "engine": repr(book.cases.engine),
        "seeds": list(book.cases.seeds),
        "longest_run_s": book.cases.horizon,
        "simulations": len({_key(trial.values) for trial in trials}) * len(book.cases.seeds),
        "versions": versions() | {"optuna": optuna().__version__},
        "date": book.date,
        "trials": [asdict(trial) for trial in trials],
    }


def _best(trials: Sequence[Trial], objective: Objective) -> Trial:
    return max(trials, key=lambda trial: objective.score(trial.value))  # of equals the first


def _key(values: Values) -> tuple:
    return tuple(sorted(values.items()))


def longest_run(workload: Workload, engine: EngineConfig, seeds: Sequence[int]) -> float:
    """Seconds after which a run is stopped: enough for anything but a scheduler that is lost."""
    rate, seconds, longest = capacity(engine, workload), engine.batch_time.seconds, 0.0
    for seed in seeds:
        table = workload.sample(seed)
        if not len(table):
            raise ValueError(f"workload {workload.name!r} has no requests in seed {seed}; tuning needs some in each")
        prompt, output = table.prompt_tokens, table.output_tokens
        alone = seconds(prompt) + output * seconds(np.ones(len(table)), decode_kv_tokens=prompt + output)
        longest = max(longest, float(table.arrival[-1] + len(table) / rate + alone.max()))
    return _PATIENCE * longest


def _check_limits(objective: Objective, workload: Workload, seed: int, slo: SLO | None) -> None:
    """Refuse an objective that says nothing about these requests."""
    needed, table = objective.needs(), workload.sample(seed)
    limits = {"ttft": table.ttft_slo, "tpot": table.tpot_slo}
    if slo is not None:
        limits = {"ttft": slo.ttft, "tpot": slo.tpot, "e2el": slo.e2el}
    kinds = limits if needed == "any" else [needed]
    if needed and not any(np.isfinite(limits[kind]).any() for kind in kinds):
        what = "a TPOT target" if needed == "tpot" else "targets"
        raise ValueError(
            f"objective {objective.name!r} needs {what}, and the requests of {workload.name!r} have none; give slo"
        )
