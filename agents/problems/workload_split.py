"""The requests for training, for tuning and for test."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.slo import SLO, TRACE_SLO
from llmsched_env.workloads import Workload, load_trace, preset

_HORIZON = 120.0  # s of arrivals of a preset where episodes have no end of their own


@dataclass(frozen=True, slots=True)
class Split:
    """Workloads for training, tuning and test.

    Attributes:
        recorded: whether they are parts of one trace, which no seed changes.
    """

    training: Workload
    tuning: Workload
    test: Workload
    recorded: bool = False


def workload_split(name: str, slo: tuple[float, float] | None, horizon: float) -> Split:
    """Training, tuning and test workload: of a preset the same, with other seeds; of a trace consecutive parts.

    Args:
        name: of a preset, or path of a trace.
        slo: (TTFT, TPOT) in s; None: those of the workload, `TRACE_SLO` for a trace without.
        horizon: of the arrivals of a preset, s.

    Raises:
        ValueError: for an unknown preset or a malformed trace.
        FileNotFoundError: for a trace that is not there.
    """
    targets = None if slo is None else SLO(*slo)
    if not (Path(name).suffix or "/" in name):
        until = horizon if math.isfinite(horizon) else _HORIZON
        workload = preset(name, horizon=until) if targets is None else preset(name, horizon=until, slo=targets)
        return Split(workload, workload, workload)
    workload = load_trace(name)
    table = workload.sample(0)
    if targets is None and not np.isfinite([table.ttft_slo, table.tpot_slo]).any():
        targets = TRACE_SLO
    if targets is not None:
        ttft, tpot = np.full(len(table), targets.ttft), np.full(len(table), targets.tpot)
        workload = Workload.from_table(replace(table, ttft_slo=ttft, tpot_slo=tpot), workload.name, targets)
    training, tuning, test = workload.split((0.6, 0.2, 0.2))
    return Split(training, tuning, test, recorded=True)


def at_load(workload: Workload, load: float | str, engine: EngineConfig) -> Workload:
    """The workload at a load, or as it is for "recorded"."""
    return workload if isinstance(load, str) else workload.at_load(load, engine)
