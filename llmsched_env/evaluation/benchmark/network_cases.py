"""Schedulers of the Rybko-Stolyar network on the same held-out tasks: mean tasks present, peaks, paired differences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import baselines
from llmsched_env.envs.network_runner import UNROUTED
from llmsched_env.evaluation.cases import map_cases
from llmsched_env.intervals import mean_interval, paired_interval
from llmsched_env.results.network_metrics import backlog
from llmsched_env.results.records import NetworkResult
from llmsched_env.results.stability import STABILITY_THRESHOLD
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.validation import check_number
from llmsched_env.workloads.rybko_stolyar import BATCH_TOKENS, RYBKO_STOLYAR_ENGINES, rybko_stolyar

HELD_OUT = 2**31
"""Seeds of tasks from here on are never drawn in training."""

Rows = dict[str, list[dict[str, float]]]
"""By name of a scheduler, the `numbers` of each of its runs."""


def priority(first: Sequence[int]) -> Scheduler:
    """Strict priority to the classes `first` over the others in the Rybko-Stolyar network; none: FCFS."""
    ranks = {f"rank_{k}": float(k not in first) for k in range(4)}
    return baselines.class_priority(token_budget=BATCH_TOKENS, **ranks)


def _rule(name: str, **values: float) -> Scheduler:
    return baselines.get(name)(token_budget=BATCH_TOKENS, **values)


CLASS_PRIORITIES: dict[str, Scheduler] = {
    "leaving first": priority((1, 3)),  # unstable: the two second visits form a virtual station
    "entering first": priority((0, 2)),
    "type A first": priority((0, 1)),
    "type B first": priority((2, 3)),
    "class 0 first": priority((0,)),
    "class 1 first": priority((1,)),
    "class 2 first": priority((2,)),
    "class 3 first": priority((3,)),
    "first come, first served": priority(()),
}
"""All there are: an engine serves two classes, so it favours one of them or none."""
OTHER_RULES: dict[str, Scheduler] = {
    name: _rule(name) for name in ("max_pressure", "critical_path", "plas", "atlas", "justitia", "srpt_predicted")
} | {
    "max_pressure of work": _rule("max_pressure", work_weighted=1),
    "shortest path first": _rule("critical_path", least_first=1),
}
PRIORITIES: dict[str, Scheduler] = CLASS_PRIORITIES | OTHER_RULES


@dataclass(frozen=True, slots=True)
class NetworkSetting:
    """What is trained and evaluated on.

    Attributes:
        load: of each engine.
        interval: s between decisions of an agent that decides at ticks.
        training_horizon: s of an episode in training.
        horizon: s of an evaluation run.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    load: float = 0.9
    interval: float = 20.0
    training_horizon: float = 1000.0
    horizon: float = 4500.0

    def __post_init__(self) -> None:
        check_number("load", self.load, above=0)
        for name in ("interval", "training_horizon", "horizon"):
            check_number(name, getattr(self, name), above=0, unit="s")

    def tasks(self, seed: int) -> TaskTable:
        """The tasks of held-out run `seed`."""
        return rybko_stolyar(self.load, self.horizon).sample(HELD_OUT + seed)


def run_scheduler(scheduler: Scheduler, setting: NetworkSetting, seed: int) -> NetworkResult:
    """A held-out run under a scheduler."""
    return simulate_network(
        scheduler, setting.tasks(seed), RYBKO_STOLYAR_ENGINES, UNROUTED, seed, horizon=setting.horizon
    )


def mean_tasks(result: NetworkResult) -> float:
    """Time average of the tasks in the system: by Little's law, mean task latency times throughput."""
    left = np.where(np.isnan(result.tasks.finish), result.end, result.tasks.finish)
    return float((left - result.tasks.arrival).sum() / result.end)


def numbers(result: NetworkResult) -> dict[str, float]:
    """Peaks of the backlog in tokens, its growth, and tasks present.

    - `peak`, and `early_peak`: up to a quarter of the run;
    - `growth` in the second half, as a share of the tokens offered per second;
    - `mean_tasks` present.
    """
    times = np.linspace(0.0, result.end, 4 * round(result.end) + 1)
    tokens = np.asarray(backlog(result, times))
    half = len(times) // 2
    slope = np.polyfit(times[half:], tokens[half:], 1)[0]
    return {
        "peak": float(tokens.max()),
        "early_peak": float(tokens[: len(tokens) // 4].max()),
        "growth": float(slope / (result.tasks.tokens.sum() / result.end)),
        "mean_tasks": mean_tasks(result),
    }


def all_numbers(
    schedulers: Sequence[Scheduler], setting: NetworkSetting, seeds: Sequence[int]
) -> list[list[dict[str, float]]]:
    """`numbers` of every held-out run of each scheduler, on all cores; [schedulers][seeds]."""
    return map_cases(
        lambda scheduler, seed: numbers(run_scheduler(scheduler, setting, seed)),
        schedulers,
        [(seed,) for seed in seeds],
    )


def compare(
    name: str,
    run: Callable[[NetworkSetting, int], NetworkResult],
    setting: NetworkSetting,
    seeds: Sequence[int],
    schedulers: Mapping[str, Scheduler] = PRIORITIES,
) -> Rows:
    """`numbers` of what `run` does (called `name`) and of each scheduler, on the same held-out runs."""
    rows = {name: [numbers(run(setting, seed)) for seed in seeds]}
    found = all_numbers(list(schedulers.values()), setting, seeds)
    return rows | dict(zip(schedulers, found, strict=True))


def fewer_tasks(rows: Rows, name: str, than: str) -> tuple[float, float]:
    """How many tasks fewer are present under `name` than under another: mean and half width of its 95 % interval."""
    theirs, own = ([run["mean_tasks"] for run in rows[each]] for each in (than, name))
    return paired_interval(theirs, own)


def verdict(runs: Sequence[dict[str, float]]) -> str:
    """Whether the backlog keeps growing, judged by the interval of its growth, as in `results.stability`."""
    growth, half_width = mean_interval([run["growth"] for run in runs])
    if growth - half_width > STABILITY_THRESHOLD:
        return "unstable"
    return "stable" if growth + half_width < STABILITY_THRESHOLD else "undecided"


def table(rows: Rows) -> str:
    """A line a scheduler: peaks of the backlog, whether it grows, mean tasks present, and what the first saves.

    That is how many tasks fewer are present under the first, on the same tasks, with its 95 % interval.
    """
    first, width = next(iter(rows)), max(map(len, rows))
    titles = "highest peak  mean peak  peak/early peak    verdict  tasks present"
    lines = [f"{'scheduler':<{width}}  {titles}  saved by {first}"]
    for name, runs in rows.items():
        peaks = np.array([run["peak"] for run in runs])
        growth = peaks / np.array([run["early_peak"] for run in runs])
        tasks = np.mean([run["mean_tasks"] for run in runs])
        saved = "" if name == first else "{:10.3f} ± {:.3f}".format(*fewer_tasks(rows, first, name))
        of_peaks = f"{peaks.max():12,.0f}  {peaks.mean():9,.0f}  {growth.mean():15.2f}  {verdict(runs):>9}"
        lines.append(f"{name:<{width}}  {of_peaks}  {tasks:13.2f}  {saved}")
    return "\n".join(line.rstrip() for line in lines)
