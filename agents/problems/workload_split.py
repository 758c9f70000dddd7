"""The requests for training, for tuning and for test."""

from dataclasses import replace

import numpy as np

from llmsched_env.slo import SLO
from llmsched_env.workloads import Workload, load_trace, preset

TRACE_SLO = (1.0, 0.1)
"""(TTFT, TPOT) in s for traces that carry no targets: those of the preset azure-chat."""


def workload_split(
    name: str, trace: str | None, slo: tuple[float, float] | None, horizon: float
) -> tuple[Workload, Workload, Workload]:
    """Training, tuning and test workload: of a preset the same, with other seeds; of a trace consecutive parts.

    Args:
        name: of a preset; ignored if there is a trace.
        trace: path of a trace.
        slo: (TTFT, TPOT) in s; None: those of the workload, `TRACE_SLO` for a trace without.
        horizon: of the arrivals of a preset, s.
    """
    targets = None if slo is None else SLO(*slo)
    if trace is None:
        workload = preset(name, horizon=horizon) if targets is None else preset(name, horizon=horizon, slo=targets)
        return workload, workload, workload
    workload = load_trace(trace)
    table = workload.sample(0)
    if targets is None and not np.isfinite([table.ttft_slo, table.tpot_slo]).any():
        targets = SLO(*TRACE_SLO)
    if targets is not None:
        ttft, tpot = np.full(len(table), targets.ttft), np.full(len(table), targets.tpot)
        workload = Workload.from_table(replace(table, ttft_slo=ttft, tpot_slo=tpot), workload.name, targets)
    training, tuning, test = workload.split((0.6, 0.2, 0.2))
    return training, tuning, test
