"""From the options that commands share to workloads and engines. The simulator is imported when they are asked for."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmsched_env.cli.options import EngineOptions, WorkloadOptions

if TYPE_CHECKING:
    from llmsched_env.machine.config import EngineConfig
    from llmsched_env.workloads import ClosedLoop, LengthPredictor, Workload


def workloads_of(options: WorkloadOptions) -> dict[str, Workload]:
    """The workloads by name, with targets, and with predicted output lengths if asked for.

    Raises:
        ValueError: for an unknown preset or a malformed trace.
        FileNotFoundError: for a path (a name with a suffix or a slash) that does not exist.
    """
    found = {}
    for name in options.workload:
        workload = _with_targets(_workload(name, options), options)
        if options.predict is not None:
            workload = workload.with_predictor(_predictor(options.predict, workload))
        found[workload.name] = workload
    return found


def closed(workload: Workload, users: int | None, horizon: float, repeats: bool = False) -> Workload | ClosedLoop:
    """The workload, or so many users who send its requests, if a number is given.

    Args:
        workload: with targets and predictions.
        users: how many; None: requests arrive by themselves.
        horizon: seconds for which users start tasks, unless they go through a trace once.
        repeats: whether a trace is gone through over and over.

    Raises:
        ValueError: if the number of users is not above 0.
    """
    from llmsched_env.workloads import AgentTasks, ClosedLoop, task_preset
    from llmsched_env.workloads.predictors import PredictedRequests
    from llmsched_env.workloads.sessions import AgentSessions

    if users is None:
        return workload
    source = workload.source.source if isinstance(workload.source, PredictedRequests) else workload.source
    if isinstance(source, AgentSessions):
        tasks = task_preset(workload.name, slo=workload.slo)
        if isinstance(workload.source, PredictedRequests) and isinstance(tasks, AgentTasks):
            tasks = replace(tasks, predictor=workload.source.predictor)
        return ClosedLoop(tasks, users, duration=horizon)
    table = getattr(source, "table", None)
    if table is None or repeats:
        return ClosedLoop(lengths=workload, users=users, duration=horizon)
    return ClosedLoop(lengths=workload, users=users, tasks=len(table))


def engines_of(options: EngineOptions) -> dict[str, EngineConfig]:
    """The engines by what was written for each.

    Raises:
        ValueError: for an unknown profile, with all that contain what was written, or the closest ones.
        FileNotFoundError: for a file that is not there.
    """
    return {name: engine_of(name, options) for name in options.engine}


def engine_of(name: str, options: EngineOptions) -> EngineConfig:
    """The engine with the profile `name`."""
    from llmsched_env.machine.config import EngineConfig

    more: dict[str, Any] = {} if options.kv_blocks is None else {"kv_blocks": options.kv_blocks}
    more |= {"prefix_caching": options.prefix_caching, "schedule_ahead": int(options.schedule_ahead)}
    more |= {} if options.step_noise is None else {"step_noise": options.step_noise}
    engine = EngineConfig.for_gpu(name, **more)
    return engine if options.believed is None else engine.believing(options.believed)


def _workload(name: str, options: WorkloadOptions) -> Workload:
    from llmsched_env.workloads import load_trace, preset

    if Path(name).suffix or "/" in name:
        workload = load_trace(
            name,
            skip_bad_rows=options.skip_bad_rows,
            time_unit=options.time_unit,
            block_tokens=options.block_tokens,
        )
        print(f"{name}: {workload.recognised}: {workload.source!r}", file=sys.stderr)
        return workload
    return preset(name, horizon=options.horizon)


def _with_targets(workload: Workload, options: WorkloadOptions) -> Workload:
    import numpy as np

    from llmsched_env.slo import TRACE_SLO
    from llmsched_env.workloads.closed_requests import ClosedRequests

    if options.slo is not None:
        return workload.with_slo(options.slo)
    source = workload.source
    table = source.table if isinstance(source, ClosedRequests) else workload.sample(0)
    if workload.slo is None and np.isinf(table.ttft_slo).all():
        return workload.with_slo(TRACE_SLO)
    return workload


def _predictor(quality: dict[str, float], workload: Workload) -> LengthPredictor:
    from llmsched_env.workloads import LengthPredictor

    if "log_sd" in quality:
        return LengthPredictor(quality["log_sd"])
    return LengthPredictor.calibrated(workload, **quality)
