"""Slices of the Azure trace of 2023: all rows are replayed, baselines are tuned on the first half of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from llmsched_env.evaluation.benchmark.cell_runs import BenchmarkCell
from llmsched_env.evaluation.benchmark.results import POLICY
from llmsched_env.evaluation.benchmark.statistics import RESAMPLES, BlockMean, block_mean
from llmsched_env.evaluation.cases import Load, map_runs
from llmsched_env.evaluation.run_cache import describe
from llmsched_env.evaluation.tuning import longest_run
from llmsched_env.machine.config import EngineConfig
from llmsched_env.objectives import OBJECTIVES
from llmsched_env.results.metrics import within_limits
from llmsched_env.results.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.workloads import Workload, load_trace, preset

LOADS: tuple[Load, ...] = ("recorded", 0.8, 0.95, 1.1)

_FILES = {"azure-code": "AzureLLMInferenceTrace_code*.csv", "azure-chat": "AzureLLMInferenceTrace_conv*.csv"}


def azure_slices(folder: Path) -> dict[str, Workload]:
    """The traces of a folder by the name of the preset of the same shape, with its targets; {} without files."""
    found = {name: sorted(folder.glob(pattern)) for name, pattern in _FILES.items()}
    traces = {}
    for name, files in found.items():
        slo = preset(name).slo
        if files and slo is not None:
            traces[name] = load_trace(files[0]).with_slo(slo)
    return traces


def azure_cells(
    slices: Mapping[str, Workload], engine: EngineConfig, loads: Sequence[Load]
) -> list[tuple[BenchmarkCell, BenchmarkCell]]:
    """(all rows, the first half of them) of each trace at each load."""
    pairs = []
    for name, trace in slices.items():
        first, _ = trace.split((0.5, 0.5))
        for load in loads:
            whole, half = (w if load == "recorded" else w.at_load(load, engine) for w in (trace, first))
            title = f"{name} trace on {engine.name.split('_')[1]}"
            pairs.append(
                (
                    BenchmarkCell(site=title, load=load, workload=whole, engine=engine, held_out=True),
                    BenchmarkCell(site=f"{title}, first half", load=load, workload=half, engine=engine, held_out=True),
                )
            )
    return pairs


@dataclass(frozen=True, slots=True)
class TraceResult:
    """A policy and the best tuned baseline on all requests of a trace.

    Attributes:
        name: trace and load.
        objective: its name.
        requests: number of requests.
        policy: metric of the policy: SLO attainment, or mean E2E latency in s.
        tuned: metric of the baseline.
        setting: the baseline with its parameters, as text.
        difference: mean over requests of policy minus baseline with the sign that positive is better; for latencies
            relative to the mean of the baseline.
        policy_name: name of the policy.
    """

    name: str
    objective: str
    requests: int
    policy: float
    tuned: float
    setting: str
    difference: BlockMean
    policy_name: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The result from JSON; `policy_name` was called `judged` once."""
        names = {"judged": "policy_name"}
        record = {names.get(name, name): value for name, value in record.items()}
        return cls(**{**record, "difference": BlockMean(*record["difference"])})


def compare_on_trace(
    cell: BenchmarkCell,
    objective: str,
    policy: Scheduler,
    tuned: Scheduler,
    resamples: int = RESAMPLES,
    name: str = POLICY,
) -> TraceResult:
    """Run both on all rows and compare them request by request, in order of arrival."""
    longest = longest_run(cell.workload, cell.engine, (0,))
    runs = [(cell.workload, cell.engine, 0)]
    [ours], [theirs] = map_runs(
        [policy, tuned], runs, lambda result: _of_requests(result, objective, longest), longest, "requests"
    )
    gain = ours - theirs if OBJECTIVES[objective].larger_is_better else (theirs - ours) / theirs.mean()
    return TraceResult(
        name=cell.name,
        objective=objective,
        requests=len(ours),
        policy=float(ours.mean()),
        tuned=float(theirs.mean()),
        setting=describe(tuned),
        difference=block_mean(gain, resamples=resamples),
        policy_name=name,
    )


def _of_requests(result: Result, objective: str, longest: float) -> np.ndarray:
    """The metric of each request, f8[n] in order of arrival; the latency of an unfinished one is `longest`."""
    rows = result.requests
    if objective == "slo_attainment":
        good = within_limits(rows, None)
        return np.full(len(rows), np.nan) if good is None else good.astype(float)
    return np.where(rows.status == "finished", rows.finish - rows.arrival, longest)
