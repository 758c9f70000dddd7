"""A measured serving run of vLLM, and the same requests on the simulated engine."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

import baselines
from llmsched_env.calibration import MeasuredRun, engine_settings, read_run
from llmsched_env.files import read_object
from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.profiles import gpu_profile, gpu_profiles
from llmsched_env.results.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate

_FACTORS = (0.3, 3.0)  # where the time factor is searched


@dataclass(frozen=True, slots=True)
class ServingRun:
    """A measured run and the machine it was measured on.

    Attributes:
        name: of the file.
        requests: in order of arrival.
        settings: of the engine, from NAME.meta.json.
        engine: the same as arguments of `EngineConfig`.
        seconds: one value a second of `t`, `running`, `waiting`, `kv_cache_pct`, from NAME.timeseries.csv; or None.
    """

    name: str
    requests: MeasuredRun
    settings: dict[str, Any]
    engine: dict[str, Any]
    seconds: dict[str, np.ndarray] | None

    @classmethod
    def load(cls, path: str | Path) -> ServingRun:
        """Read NAME.requests.jsonl, NAME.meta.json and, if it exists, NAME.timeseries.csv of the same folder.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: naming the file, line and field that is missing or not allowed.
        """
        path = Path(path)
        name = path.name.removesuffix(".requests.jsonl")
        meta, seconds = path.with_name(f"{name}.meta.json"), path.with_name(f"{name}.timeseries.csv")
        over_time = _seconds(seconds) if seconds.exists() else None
        return cls(name, read_run(path), read_object(meta), engine_settings(meta), over_time)

    @property
    def profile(self) -> str:
        """The shipped GPU profile of its model and hardware.

        Raises:
            ValueError: if there is none or more than one.
        """
        model = str(self.settings["model"]).split("/")[-1].lower()
        device = str(self.settings["hardware"]["device_name"]).lower().replace(" ", "")
        degree = f"_tp{self.settings['engine_kwargs'].get('tensor_parallel_size', 1)}_"
        known = [gpu_profile(name) for name in gpu_profiles()]
        fitting = [p.name for p in known if p.name.startswith(f"{model}_") and degree in p.name]
        fitting = [name for name in fitting if name.split("_")[1].split("-")[0] in device]
        if len(fitting) != 1:
            found = ", ".join(fitting) or "none"
            raise ValueError(
                f"profile must be given: {found} fit {model} on {device}; there are {', '.join(gpu_profiles())}"
            )
        return fitting[0]


def engine_of(run: ServingRun, profile: str | None = None, factor: float = 1.0) -> EngineConfig:
    """The engine of a run with the batch times of a profile times `factor`.

    Raises:
        ValueError: for an unknown profile.
    """
    engine = EngineConfig.for_gpu(run.profile if profile is None else profile, **run.engine)
    return replace(engine, batch_time=engine.batch_time.scaled(factor))


def scheduler_of(run: ServingRun) -> Scheduler:
    """The scheduler of vLLM V1 with the settings of a run."""
    options = run.settings["engine_kwargs"]
    return baselines.vllm_v1(
        token_budget=options["max_num_batched_tokens"],
        max_num_seqs=options["max_num_seqs"],
        scheduler_reserve_full_isl=int(options.get("scheduler_reserve_full_isl", True)),
        priority=int(options.get("scheduling_policy", "fcfs") == "priority"),
    )


def simulated(run: ServingRun, profile: str | None = None, factor: float = 1.0) -> Result:
    """Simulate the requests of a run."""
    return simulate(scheduler_of(run), run.requests.workload, engine_of(run, profile, factor))


def latencies(run: MeasuredRun) -> dict[str, np.ndarray]:
    """Seconds, f8[n] each: TTFT from the queue on, TPOT (nan for one token), E2E latency."""
    tpot = np.where(run.output_tokens > 1, (run.e2el - run.ttft) / np.maximum(1, run.output_tokens - 1), np.nan)
    return {"ttft": run.ttft, "tpot": tpot, "e2el": run.e2el}


def summary(run: MeasuredRun) -> dict[str, float]:
    """The numbers to compare, in s."""
    numbers = {"makespan": float(np.max(run.arrival + run.e2el))}
    for name, values in latencies(run).items():
        numbers[f"mean_{name}"] = float(np.nanmean(values))
        numbers[f"median_{name}"] = float(np.nanmedian(values))
        numbers[f"p99_{name}"] = float(np.nanpercentile(values, 99))
    return numbers


def fitted_factor(run: ServingRun, profile: str | None = None, share: float = 1 / 3) -> float:
    """The factor on batch times at which the first `share` of the requests agrees best with the measurements.

    It minimises the mean of |log(simulated / measured)| over mean TTFT and mean TPOT of these requests. All requests
    are simulated.
    """
    first = slice(0, max(1, math.ceil(share * len(run.requests.arrival))))
    measured = latencies(run.requests)

    def distance(log_factor: float) -> float:
        ours = latencies(MeasuredRun.from_result(simulated(run, profile, math.exp(log_factor))))
        means = [np.nanmean(ours[name][first]) / np.nanmean(measured[name][first]) for name in ("ttft", "tpot")]
        return float(np.abs(np.log(means)).mean())

    # Preemptions make the distance rough on a small scale, so a grid search finds the valley first.
    grid = np.linspace(*np.log(_FACTORS), 24)
    best = int(np.argmin([distance(x) for x in grid]))
    bounds = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    return math.exp(minimize_scalar(distance, bounds=bounds, method="bounded", options={"xatol": 1e-3}).x)


def _seconds(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in ("t", "running", "waiting", "kv_cache_pct")}
