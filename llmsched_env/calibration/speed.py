"""Calibration of the speed of a known profile to a serving run, by one factor."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from llmsched_env.calibration.measured_run import MeasuredRun
from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.profile_files import law_in_ms, write_profile
from llmsched_env.machine.profiles import LAWS, GPUProfile
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate

_SLOWEST = 20.0  # largest factor that is tried, and the inverse of the smallest


@dataclass(frozen=True, slots=True, eq=False)
class SpeedCalibration:
    """The speed of a serving run relative to a profile.

    Attributes:
        base: the profile.
        factor: on all of its batch times.
        engine: the machine of the run at the fitted speed.
        measured: mean latencies and duration of the run in s, see `MeasuredRun.summary`.
        before: the same, simulated with the unchanged profile.
        after: the same, simulated at the fitted speed.
    """

    base: GPUProfile
    factor: float
    engine: EngineConfig
    measured: dict[str, float]
    before: dict[str, float]
    after: dict[str, float]

    @property
    def errors_pct(self) -> dict[str, float]:
        """Simulated over measured, minus 1, percent; by metric."""
        return {name: 100 * (self.after[name] / value - 1) for name, value in self.measured.items() if value}

    def save(self, path: str | Path) -> Path:
        """Write the profile at the fitted speed as JSON; `EngineConfig.for_gpu` and `gpu_profile` accept its path."""
        form = next(name for name, kind in LAWS.items() if isinstance(self.base.batch_time, kind))
        own = {name: getattr(self.base, name) for name in ("staircase", "hinge")} | {form: self.base.batch_time}
        laws = {name: law_in_ms(law.scaled(self.factor)) for name, law in own.items() if law is not None}
        kept = {field.name: getattr(self.base, field.name) for field in fields(self.base)}
        for name in ("name", "batch_time", "staircase", "hinge"):
            kept.pop(name)
        source = f"{self.base.name} ({self.base.source}), all times multiplied by {self.factor:.4g} after a serving run"
        write_profile(Path(path), {**kept, "form": form, "source": source, **laws})
        return Path(path)

    def report(self) -> str:
        """Measured and simulated numbers as text."""
        lines = [
            f"{self.base.name}: batch times multiplied by {self.factor:.4f}",
            "            measured    before     after",
        ]
        for name, value in self.measured.items():
            error = f"  ({self.errors_pct[name]:+.1f} %)" if name in self.errors_pct else ""
            lines.append(f"{name:<10}{value:10.4g}{self.before[name]:10.4g}{self.after[name]:10.4g} s{error}")
        return "\n".join(lines)


def calibrate_speed(
    run: MeasuredRun, base: GPUProfile, scheduler: Scheduler, settings: dict[str, Any] | None = None
) -> SpeedCalibration:
    """Find the factor on all batch times at which the simulated run agrees best with the measured one.

    It minimises the squared log ratios of mean TTFT, mean TPOT, mean E2E latency and duration, so a run that is twice
    too slow counts as much as one that is twice too fast.

    Args:
        run: the measurements.
        base: the profile to start from.
        scheduler: what composed the batches.
        settings: arguments of `EngineConfig`, such as its limits; by default the KV blocks of the profile.

    Raises:
        ValueError: bad settings, or a run that the engine does not finish.
    """
    settings = {"kv_blocks": base.kv_blocks(block_size=(settings or {}).get("block_size", 16)), **(settings or {})}
    engine = EngineConfig(batch_time=base.batch_time, name=base.name, **settings)
    measured, workload = run.summary(), run.workload

    def simulated(factor: float) -> dict[str, float]:
        result = simulate(scheduler, workload, _at(engine, base, factor), record="requests")
        rows = result.requests
        if not np.all(rows.status == "finished"):
            stuck = int(np.count_nonzero(rows.status != "finished"))
            raise ValueError(f"{stuck} of {len(rows)} requests of the run do not finish on {engine!r}")
        return MeasuredRun.from_result(result).summary()

    def disagreement(log_factor: float) -> float:
        own = simulated(math.exp(log_factor))
        return sum(math.log(own[name] / value) ** 2 for name, value in measured.items() if value and own[name])

    before = simulated(1.0)
    # Grids, each ten times finer: one batch more or less makes the disagreement jump, which misleads a descent.
    best, step = 0.0, math.log(_SLOWEST) / 12
    for half_width in (12, 10, 10, 10):
        grid = best + step * np.arange(-half_width, half_width + 1)
        best = float(grid[np.argmin([disagreement(point) for point in grid])])
        step /= 10
    factor = math.exp(best)
    return SpeedCalibration(
        base=base,
        factor=factor,
        engine=_at(engine, base, factor),
        measured=measured,
        before=before,
        after=simulated(factor),
    )


def _at(engine: EngineConfig, base: GPUProfile, factor: float) -> EngineConfig:
    return replace(engine, batch_time=base.batch_time.scaled(factor))
