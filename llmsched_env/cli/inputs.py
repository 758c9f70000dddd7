"""From the options that commands share to workloads and engines. The simulator is imported when they are asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmsched_env.cli.options import EngineOptions, WorkloadOptions

if TYPE_CHECKING:
    from llmsched_env.machine.config import EngineConfig
    from llmsched_env.workloads import LengthPredictor, Workload


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
