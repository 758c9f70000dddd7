"""What a workload asks of a fleet: for how long, how much of it fits on a machine, and at what load."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.task_rows import isolated_seconds
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.tables.task_table import TaskTable, requests_of
from llmsched_env.theory import capacity
from llmsched_env.workloads import ClosedLoop, Workload

TIMES_ALONE = 30
"""Arrivals must last so many times as long as a mean request takes alone, for queues to show."""


_CERTAIN = 1.05  # times alone are of mean contexts: nearer to a target than this, a simulation decides


@dataclass(frozen=True, slots=True)
class FleetDemand:
    """A workload that lasts long enough, and what it asks of one machine.

    Attributes:
        workload: what is simulated.
        seconds: for which requests arrive.
        load: offered rate over the reference capacity of one replica; nan of users in a closed loop.
        requests: how many the workload as given has with the first seed.
        unfit: how many of them do not fit on a replica even alone.
        late: how many fit, and miss their targets even alone on an idle replica.
        fixed: whether every seed gives the same requests.
        warnings: what has been changed, and what does not fit.
    """

    workload: Workload | ClosedLoop
    seconds: float
    load: float
    requests: int
    unfit: int
    late: int
    fixed: bool
    warnings: tuple[str, ...]

    @property
    def never(self) -> str:
        """Which requests no number of replicas serves within their targets; empty: none."""
        reasons = [f"{self.unfit} of {self.requests} requests do not fit"] if self.unfit else []
        if self.late:
            reasons.append(f"{self.late} of {self.requests} requests miss their targets even alone")
        return ", ".join(reasons)


def demand_on(engine: EngineConfig, workload: Workload | ClosedLoop) -> FleetDemand:
    """What the workload asks of such an engine.

    Arrivals that are too short are made longer: fixed requests come over and over, random ones go on.

    Raises:
        ValueError: if requests have no arrivals that spread over time, or users in a closed loop no duration.
    """
    if isinstance(workload, ClosedLoop):
        if workload.duration is None:
            raise ValueError("duration must be a number of seconds for users in a closed loop, got None")
    elif not math.isfinite(workload.rate):
        raise ValueError(
            f"rate must be known, got {workload!r}, whose arrivals do not spread over time; give a rate (--rate) or "
            "the number of users (--concurrency)"
        )
    lasting, warnings = _long_enough(engine, workload)
    table, calls = lasting.sample(0), requests_of(workload.sample(0))
    fit = fits(engine, calls.prompt_tokens, calls.output_tokens)
    late = fit & _late_alone(engine, calls)
    demand = FleetDemand(
        workload=lasting,
        seconds=_seconds(lasting, table),
        load=workload.rate / capacity(engine, workload),
        requests=len(calls),
        unfit=int(np.count_nonzero(~fit)),
        late=int(np.count_nonzero(late)),
        fixed=lasting.sample(1) is table,
        warnings=tuple(warnings),
    )
    if demand.never:
        demand = replace(demand, warnings=(*warnings, f"{demand.never} on this machine, and count as missed"))
    return demand


def _long_enough(engine: EngineConfig, workload: Workload | ClosedLoop) -> tuple[Workload | ClosedLoop, list[str]]:
    alone = float(np.mean(isolated_seconds(engine, *workload.length_sample())))
    least, seconds = TIMES_ALONE * alone, _seconds(workload, workload.sample(0))
    if seconds >= least:
        return workload, []
    if isinstance(workload, ClosedLoop):
        longer: Workload | ClosedLoop = replace(workload, duration=least)
    else:
        longer = workload.lasting(least)
    table = longer.sample(0)
    how = "the same requests over and over" if table is longer.sample(1) else "going on as they are"
    return longer, [
        f"{seconds:.3g} s of arrivals are too short for requests that take {alone:.3g} s each alone on an engine: "
        f"queues would not show; simulated for {_seconds(longer, table):.3g} s, {how}"
    ]


def _seconds(workload: Workload | ClosedLoop, table: RequestTable | TaskTable) -> float:
    """For how long requests arrive, s."""
    if isinstance(workload, ClosedLoop):
        return workload.duration or math.inf
    assert isinstance(table, RequestTable)  # as all workloads draw
    return len(table) / workload.rate if table.horizon is None else table.horizon


def fits(engine: EngineConfig, prompt: np.ndarray, output: np.ndarray) -> np.ndarray:
    """bool[n]: whether requests of these tokens fit on the engine if they are alone there."""
    held = prompt + output - 1 + engine.separate
    fit = np.ones(len(prompt), bool)
    if engine.kv_blocks is not None:
        fit &= held <= engine.kv_blocks * engine.block_size
    if engine.max_model_len is not None:
        fit &= prompt + output <= engine.max_model_len
    return fit


def _late_alone(engine: EngineConfig, calls: RequestTable) -> np.ndarray:
    """bool[n]: whether requests miss their targets for certain, whatever the scheduler and however idle the engine."""
    if engine.prefix_caching or engine.step_noise:
        return np.zeros(len(calls), bool)
    prompt, output = calls.prompt_tokens, calls.output_tokens
    first = isolated_seconds(engine, prompt, np.ones(len(calls)) - engine.separate)
    per_token = (isolated_seconds(engine, prompt, output) - first) / np.maximum(output - 1, 1)
    late = (first > _CERTAIN * calls.ttft_slo) | ((output > 1) & (per_token > _CERTAIN * calls.tpot_slo))
    return np.asarray(late)
