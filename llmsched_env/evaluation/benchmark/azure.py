"""Slices of the Azure trace of 2023: all rows replayed, baselines tuned on the first half of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from llmsched_env.evaluation.benchmark.block_bootstrap import BlockMean, block_mean
from llmsched_env.evaluation.benchmark.cells import Cell
from llmsched_env.evaluation.benchmark.judged import POLICY
from llmsched_env.evaluation.benchmark.statistics import RESAMPLES
from llmsched_env.evaluation.cases import map_runs
from llmsched_env.evaluation.cell import Load
from llmsched_env.evaluation.identity import describe
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.evaluation.tuning import longest_run
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.metrics import within_limits
from llmsched_env.simulator.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.workloads import Workload, load_trace, preset

LOADS: tuple[Load, ...] = ("recorded", 0.8, 0.95, 1.1)

_FILES = {"azure-code": "AzureLLMInferenceTrace_code*.csv", "azure-chat": "AzureLLMInferenceTrace_conv*.csv"}


def azure_slices(folder: Path) -> dict[str, Workload]:
    """The traces in a folder, with the targets of the preset of the same shape, by its name; {} without files."""
    found = {name: sorted(folder.glob(pattern)) for name, pattern in _FILES.items()}
    return {name: load_trace(files[0]).with_slo(preset(name).slo) for name, files in found.items() if files}


def azure_cells(slices: Mapping[str, Workload], engine: EngineConfig, loads: Sequence[Load]) -> list[tuple[Cell, Cell]]:
    """(all rows, the first half of them) for each trace at each load, "recorded" being its own rate."""
    pairs = []
    for name, trace in slices.items():
        first, _ = trace.split((0.5, 0.5))
        for load in loads:
            whole, half = (w if load == "recorded" else w.at_load(load, engine) for w in (trace, first))
            title = f"{name} trace on {engine.name.split('_')[1]}"
            pairs.append(
                (Cell(title, load, whole, engine, True), Cell(f"{title}, first half", load, half, engine, True))
            )
    return pairs


@dataclass(frozen=True, slots=True)
class JudgedTrace:
    """A policy against the best tuned baseline on all requests of a trace.

    Attributes:
        name: trace and load.
        objective: its name.
        requests: how many.
        policy: its metric: SLO attainment, or mean E2E latency in s.
        tuned: that of the baseline.
        setting: what the baseline was.
        difference: mean over requests of policy less baseline, such that above 0 is better; of latencies as a share of
            the mean of the baseline.
        judged: the name of the policy.
    """

    name: str
    objective: str
    requests: int
    policy: float
    tuned: float
    setting: str
    difference: BlockMean
    judged: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """From JSON."""
        return cls(**{**record, "difference": BlockMean(*record["difference"])})


def judge_trace(
    cell: Cell,
    objective: str,
    policy: Scheduler,
    tuned: Scheduler,
    resamples: int = RESAMPLES,
    name: str = POLICY,
) -> JudgedTrace:
    """Run both on all rows and compare them request by request, in order of arrival."""
    longest = longest_run(cell.workload, cell.engine, (0,))
    runs = [(cell.workload, cell.engine, 0)]
    [ours], [theirs] = map_runs(
        [policy, tuned], runs, lambda result: _of_requests(result, objective, longest), longest, "requests"
    )
    gain = ours - theirs if OBJECTIVES[objective].larger_is_better else (theirs - ours) / theirs.mean()
    return JudgedTrace(
        name=cell.name,
        objective=objective,
        requests=len(ours),
        policy=float(ours.mean()),
        tuned=float(theirs.mean()),
        setting=describe(tuned),
        difference=block_mean(gain, resamples=resamples),
        judged=name,
    )


def _of_requests(result: Result, objective: str, longest: float) -> np.ndarray:
    """f8[n] in order of arrival: whether each met its targets, or its E2E latency in s, `longest` if it never ended."""
    rows = result.requests
    if objective == "slo_attainment":
        return within_limits(rows, None).astype(float)
    return np.where(rows.status == "finished", rows.finish - rows.arrival, longest)
