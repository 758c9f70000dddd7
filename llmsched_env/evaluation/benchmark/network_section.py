"""The network policy against every rule on the same held-out tasks, for the benchmark: rows, claims and a table."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from llmsched_env.evaluation.benchmark.network_cases import (
    CLASS_PRIORITIES,
    NetworkSetting,
    Rows,
    all_numbers,
    fewer_tasks,
    numbers,
    verdict,
)
from llmsched_env.evaluation.benchmark.results import Claim
from llmsched_env.evaluation.benchmark.sections import ReportSection
from llmsched_env.evaluation.benchmark.tables import ReportTable
from llmsched_env.evaluation.run_cache import digest_of, scheduler_digest, source_of
from llmsched_env.files import write_json
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.workloads.rybko_stolyar import rybko_stolyar

_TITLE = "Mean tasks present"


def run_networks(
    schedulers: Mapping[str, Scheduler], setting: NetworkSetting, runs: int, path: Path, progress: bool = True
) -> Rows:
    """`numbers` of held-out runs 0 to `runs` - 1 of each scheduler; those that the file holds are not run again.

    Args:
        schedulers: by name, the policy that is judged first.
        setting: load and horizon.
        runs: how many.
        path: the file, written after each scheduler.
        progress: whether to show it.
    """
    old = json.loads(path.read_text(encoding="utf-8"))["kept"] if path.exists() else {}
    keys = {name: _key(scheduler, setting) for name, scheduler in schedulers.items()}
    kept = {key: old[key] for key in keys.values() if key in old}
    with tqdm(schedulers.items(), unit="networks", dynamic_ncols=True, disable=None if progress else True) as bar:
        for name, scheduler in bar:
            bar.set_description(f"network, {name}")
            have = kept.setdefault(keys[name], [])
            [new] = all_numbers([scheduler], setting, range(len(have), runs))
            have += new
            write_json(path, {"setting": asdict(setting), "runs": runs, "schedulers": keys, "kept": kept})
    return read_networks(path)


def read_networks(path: Path) -> Rows:
    """The rows that `run_networks` wrote, the policy's first; empty if it has not run to its end."""
    if not path.exists():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = {name: record["kept"].get(key, [])[: record["runs"]] for name, key in record["schedulers"].items()}
    return rows if all(len(own) == record["runs"] for own in rows.values()) else {}


def network_verdicts(rows: Rows, first: Collection[str] = tuple(CLASS_PRIORITIES)) -> list[Claim]:
    """Whether the policy, the first of the rows, is stable with fewer tasks present than rules: `first`, and all."""
    others = list(rows)[1:]
    return [
        _verdict(rows, "every class priority rule", [name for name in others if name in first]),
        _verdict(rows, "every registered rule", others),
    ]


def network_table(rows: Rows) -> ReportTable:
    """A row a scheduler, the fewest tasks present first."""
    policy = next(iter(rows))
    lines = []
    for name, runs in sorted(rows.items(), key=lambda item: _mean(item[1], "mean_tasks")):
        saved = "" if name == policy else _saved_text(*fewer_tasks(rows, policy, name))
        growth = np.mean([run["peak"] / run["early_peak"] for run in runs])
        highest = max(run["peak"] for run in runs)
        tasks = f"{_mean(runs, 'mean_tasks'):.2f}"
        lines.append((name, tasks, saved, verdict(runs), f"{highest:,.0f}", f"{growth:.2f}"))
    caption = (
        f"The Rybko-Stolyar network on {len(rows[policy])} held-out runs. Tasks present: time average, by Little's law "
        "the mean task latency times the throughput. Saved: how many fewer are present under the policy on the same "
        "tasks, with the 95 % t-interval; ✓ above 0, ✗ below. Backlog: whether it keeps growing; its highest peak in "
        "tokens, and the mean peak over that of the first quarter."
    )
    header = ("Scheduler", "Tasks present", "Saved by the policy", "Backlog", "Highest peak", "Peak / early peak")
    return ReportTable("Agent network: tasks present", caption, header, tuple(lines), (0, 3))


def network_sections(path: Path) -> list[ReportSection]:
    """The section of the report; none if `run_networks` has not run."""
    rows = read_networks(path)
    if not rows:
        return []
    claims = tuple((_TITLE, claim) for claim in network_verdicts(rows))
    return [ReportSection("networks", "Agent networks", (network_table(rows),), claims)]


def _verdict(rows: Rows, of: str, others: Collection[str]) -> Claim:
    policy = next(iter(rows))
    state = verdict(rows[policy])
    saved = {name: fewer_tasks(rows, policy, name) for name in others}
    fewer = [name for name, (mean, half) in saved.items() if mean - half > 0]
    closest = min(saved, key=lambda name: saved[name][0])
    return Claim(
        f"Agent network: stable, and fewer tasks present (so a lower mean latency) than under {of}, 95 % interval "
        "above 0",
        f"{state}, fewer than {len(fewer)} of {len(others)}; least saved {_saved_text(*saved[closest])} ({closest})",
        state == "stable" and len(fewer) == len(others),
    )


def _saved_text(mean: float, half: float) -> str:
    mark = "✓" if mean > half else "✗" if mean < -half else ""
    return f"{mean:+.3f} ± {half:.3f}{mark}"


def _mean(runs: list[dict[str, float]], name: str) -> float:
    return float(np.mean([run[name] for run in runs]))


def _key(scheduler: Scheduler, setting: NetworkSetting) -> str:
    return digest_of(scheduler_digest(scheduler), setting, source_of(numbers), source_of(rybko_stolyar))
