"""The requests of a measured run on the simulated engine: uncalibrated, with one fitted factor, and calibrated."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar

import baselines
from baselines import routers
from experiments.measured_run import ServingRun, latencies, summary
from llmsched_env.calibration import MeasuredRun, Note, calibrate_speed
from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.profiles import GPUProfile, gpu_profile
from llmsched_env.results.records import NetworkResult, Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate, simulate_network

UNCALIBRATED, ONE_FACTOR, CALIBRATED = "uncalibrated", "one factor", "calibrated"
_FACTORS = (0.3, 3.0)  # where the time factor is searched


@dataclass(frozen=True, slots=True)
class Simulation:
    """One way to simulate a run.

    Attributes:
        engine: the machine.
        factor: on the batch times of the profile.
        result: the rows.
    """

    engine: EngineConfig
    factor: float
    result: Result | NetworkResult

    @property
    def requests(self) -> MeasuredRun:
        """In the form of a measured run."""
        return MeasuredRun.from_result(self.result)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measured run and its simulations by name.

    Attributes:
        run: the measurements.
        profile: of model and GPU.
        simulations: `uncalibrated`, `one factor` and, of one engine, `calibrated`.
        notes: what is assumed and left out.
        spread_pct: by metric, largest less smallest over the mean of this run and its repeats; empty without repeats.
    """

    run: ServingRun
    profile: GPUProfile
    simulations: dict[str, Simulation]
    notes: tuple[Note, ...]
    spread_pct: dict[str, float]

    @property
    def numbers(self) -> dict[str, dict[str, float]]:
        """Every metric in s: [metric]["measured" or name of the simulation]."""
        rows = {"measured": summary(self.run.requests)}
        rows |= {name: summary(simulation.requests) for name, simulation in self.simulations.items()}
        return {metric: {name: row[metric] for name, row in rows.items()} for metric in rows["measured"]}


def compare(run: ServingRun, profile: str | None = None, repeats: tuple[ServingRun, ...] = ()) -> Comparison:
    """Simulate a run in all ways.

    Args:
        run: the run.
        profile: name or file of a GPU profile; None: the shipped one of model and hardware.
        repeats: further runs of the same requests and settings.

    Raises:
        FileNotFoundError: there is no such profile file.
        ValueError: an unknown profile, settings that are missing or cannot be simulated, or a run that the engine does
            not finish.
    """
    run.settings.limits()
    name = run.settings.shipped_profile() if profile is None else profile
    gpu = gpu_profile(name)
    arguments, notes = run.settings.engine_of(gpu)
    engine = EngineConfig.for_gpu(name, **arguments)
    shipped = simulated(run, engine)
    factor = fitted_factor(run, lambda factor: simulated(run, engine, factor))
    simulations = {UNCALIBRATED: shipped, ONE_FACTOR: simulated(run, engine, factor)}
    if run.settings.replicas == 1:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            found = calibrate_speed(run.requests, gpu, scheduler_of(run), arguments)
        notes += [Note("assumed", f"of the calibration: {doubt.message}") for doubt in caught]
        simulations[CALIBRATED] = Simulation(found.engine, found.factor, _rows(run, found.engine))
    else:
        notes.append(Note("left out", "the calibrated column: llmsched calibrate fits one engine, the run has several"))
    return Comparison(run, gpu, simulations, (*notes, *run.notes), _spread(run, repeats))


def scheduler_of(run: ServingRun) -> Scheduler:
    """The scheduler of vLLM V1 with the settings of a run."""
    return baselines.vllm_v1(**run.settings.limits(), **run.settings.scheduler)


def simulated(run: ServingRun, engine: EngineConfig, factor: float = 1.0) -> Simulation:
    """The requests of a run on an engine, with its batch times times `factor`.

    Raises:
        ValueError: the settings lack a limit, or not all requests finish.
    """
    engine = replace(engine, batch_time=engine.batch_time.scaled(factor))
    return Simulation(engine, factor, _rows(run, engine))


def _rows(run: ServingRun, engine: EngineConfig) -> Result | NetworkResult:
    replicas, scheduler, workload = run.settings.replicas, scheduler_of(run), run.requests.workload
    if replicas == 1:
        result: Result | NetworkResult = simulate(scheduler, workload, engine)
    else:
        result = simulate_network(scheduler, workload, [engine] * replicas, routers.get("vllm_data_parallel"))
    stuck = int(np.count_nonzero(result.requests.status != "finished"))
    if stuck:
        raise ValueError(f"{stuck} of {len(result.requests)} requests of {run.name} do not finish on {engine!r}")
    return result


def fitted_factor(run: ServingRun, simulated: Callable[[float], Simulation], share: float = 1 / 3) -> float:
    """The factor on batch times at which the first `share` of the requests agrees best with the measurements.

    It minimises the mean of |log(simulated / measured)| over mean TTFT and mean TPOT of these requests. All requests
    are simulated.
    """
    first = slice(0, max(1, math.ceil(share * len(run.requests.arrival))))
    measured = latencies(run.requests)
    names = [name for name in ("ttft", "tpot") if not np.isnan(measured[name][first]).all()]

    def distance(log_factor: float) -> float:
        ours = latencies(simulated(math.exp(log_factor)).requests)
        means = [np.nanmean(ours[name][first]) / np.nanmean(measured[name][first]) for name in names]
        return float(np.abs(np.log(means)).mean())

    # Preemptions make the distance rough on a small scale, so a grid search finds the valley first.
    grid = np.linspace(*np.log(_FACTORS), 24)
    best = int(np.argmin([distance(x) for x in grid]))
    bounds = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    return math.exp(minimize_scalar(distance, bounds=bounds, method="bounded", options={"xatol": 1e-3}).x)


def _spread(run: ServingRun, repeats: tuple[ServingRun, ...]) -> dict[str, float]:
    if not repeats:
        return {}
    rows = [summary(each.requests) for each in (run, *repeats)]
    columns = {metric: [row[metric] for row in rows] for metric in rows[0]}
    return {metric: 100 * (max(values) - min(values)) / float(np.mean(values)) for metric, values in columns.items()}
