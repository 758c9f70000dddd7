"""The factor on a profile's batch times at which a simulated run agrees best with a measured one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from llmsched_env.calibration.measured_run import MeasuredRun
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate

_SLOWEST = 20.0  # largest factor that is tried, and the inverse of the smallest


def simulated_summary(run: MeasuredRun, engine: EngineConfig, scheduler: Scheduler) -> dict[str, float]:
    """`MeasuredRun.summary` of the same requests on the simulated engine.

    Raises:
        ValueError: the engine does not finish the run.
    """
    result = simulate(scheduler, run.workload, engine, record="requests")
    rows = result.requests
    if not np.all(rows.status == "finished"):
        stuck = int(np.count_nonzero(rows.status != "finished"))
        raise ValueError(f"{stuck} of {len(rows)} requests of the run do not finish on {engine!r}")
    return MeasuredRun.from_result(result).summary()


def simulated_factor(run: MeasuredRun, engine: EngineConfig, scheduler: Scheduler) -> float:
    """The factor on the engine's batch times that minimises the squared log ratios of the run's summary.

    So a run that is twice too slow counts as much as one that is twice too fast. Noise of the steps is left out.
    """
    engine, measured = replace(engine, step_noise=0.0), run.summary()

    def disagreement(log_factor: float) -> float:
        law = engine.batch_time.scaled(math.exp(log_factor))
        own = simulated_summary(run, replace(engine, batch_time=law), scheduler)
        return sum(math.log(own[name] / value) ** 2 for name, value in measured.items() if value and own[name])

    # Grids, each ten times finer: one batch more or less makes the disagreement jump, which misleads a descent.
    best, step = 0.0, math.log(_SLOWEST) / 12
    for half_width in (12, 10, 10, 10):
        grid = best + step * np.arange(-half_width, half_width + 1)
        best = float(grid[np.argmin([disagreement(point) for point in grid])])
        step /= 10
    return math.exp(best)
