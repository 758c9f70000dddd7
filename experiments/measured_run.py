"""A measured serving run of vLLM, and the same requests served by the simulated engine."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

import baselines
from llmsched_env.profiles import gpu_profile, gpu_profiles
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate
from llmsched_env.validation import check_choice
from llmsched_env.workloads import Workload

_NUMBERS = ("input_toks", "output_toks", "queued_ts", "first_token_ts", "last_token_ts")
_FACTORS = (0.3, 3.0)  # where the time factor is searched


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """Requests in the order in which the engine got them; times in seconds since the first was queued.

    Attributes:
        name: of the file.
        arrival: f8[n], when each was queued in the engine.
        prompt_tokens: i8[n].
        output_tokens: i8[n].
        first_token: f8[n].
        finish: f8[n], the last token.
        settings: of the engine, from NAME.meta.json.
        seconds: one row a second with `t`, `running`, `waiting`, `kv_cache_pct`, from NAME.timeseries.csv; or None.
    """

    name: str
    arrival: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    first_token: np.ndarray
    finish: np.ndarray
    settings: dict[str, Any]
    seconds: dict[str, np.ndarray] | None

    @classmethod
    def load(cls, path: str | Path) -> MeasuredRun:
        """Read NAME.requests.jsonl, NAME.meta.json beside it and, if it is there, NAME.timeseries.csv.

        A line holds `input_toks`, `output_toks`, `queued_ts`, `first_token_ts` and `last_token_ts`, the times in
        seconds on one clock.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: naming the file, line and field that is missing or not allowed.
        """
        path = Path(path)
        rows = [_request(path, k, line) for k, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)]
        if not rows:
            raise ValueError(f"{path} must hold at least one request, got none")
        columns = np.array(sorted(rows, key=lambda row: row[2]))
        prompt, output = columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64)
        queued, first, last = (columns[:, k] - columns[0, 2] for k in (2, 3, 4))
        name = path.name.removesuffix(".requests.jsonl")
        settings = json.loads(path.with_name(f"{name}.meta.json").read_text(encoding="utf-8"))
        seconds = path.with_name(f"{name}.timeseries.csv")
        return cls(name, queued, prompt, output, first, last, settings, _seconds(seconds) if seconds.exists() else None)

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

    def workload(self) -> Workload:
        """Its requests."""
        return Workload.from_arrays(self.arrival, self.prompt_tokens, self.output_tokens)

    def latencies(self) -> dict[str, np.ndarray]:
        """Seconds, f8[n] each: TTFT from the queue on, TPOT (nan for one token), E2E latency."""
        return _latencies(self.arrival, self.first_token, self.finish, self.output_tokens)


def engine_of(run: MeasuredRun, profile: str | None = None, factor: float = 1.0) -> EngineConfig:
    """The engine of a run with the batch times of a profile times `factor`; vLLM's null block is no memory.

    Raises:
        ValueError: for an unknown profile.
    """
    name = run.profile if profile is None else check_choice("profile", profile, tuple(gpu_profiles()))
    options, cache = run.settings["engine_kwargs"], run.settings["kv_cache"]
    engine = EngineConfig.for_gpu(
        name,
        kv_blocks=cache["num_gpu_blocks"] - 1,
        block_size=cache["block_size"],
        token_budget=options["max_num_batched_tokens"],
        max_num_seqs=options["max_num_seqs"],
        schedule_ahead=int(options.get("async_scheduling", True)),
        prefix_caching=bool(cache.get("enable_prefix_caching", True)),
    )
    return replace(engine, batch_time=engine.batch_time.scaled(factor))


def scheduler_of(run: MeasuredRun) -> Scheduler:
    """The scheduler of vLLM V1 with the settings of a run."""
    options = run.settings["engine_kwargs"]
    return baselines.vllm_v1(
        token_budget=options["max_num_batched_tokens"],
        max_num_seqs=options["max_num_seqs"],
        scheduler_reserve_full_isl=int(options.get("scheduler_reserve_full_isl", True)),
        priority=int(options.get("scheduling_policy", "fcfs") == "priority"),
    )


def simulated(run: MeasuredRun, profile: str | None = None, factor: float = 1.0) -> Result:
    """The requests of a run, served by the simulated engine."""
    return simulate(scheduler_of(run), run.workload(), engine_of(run, profile, factor))


def result_latencies(result: Result) -> dict[str, np.ndarray]:
    """`MeasuredRun.latencies` of a simulated run."""
    rows = result.requests
    return _latencies(rows.arrival, rows.first_token, rows.finish, rows.output_tokens)


def summary(latencies: dict[str, np.ndarray], makespan: float) -> dict[str, float]:
    """The numbers that are compared, seconds."""
    numbers = {"makespan": makespan}
    for name, values in latencies.items():
        numbers[f"mean_{name}"] = float(np.nanmean(values))
        numbers[f"median_{name}"] = float(np.nanmedian(values))
        numbers[f"p99_{name}"] = float(np.nanpercentile(values, 99))
    return numbers


def fitted_factor(run: MeasuredRun, profile: str | None = None, share: float = 1 / 3) -> float:
    """The one factor on batch times that makes the first `share` of the requests as fast as they were measured.

    All requests are simulated; what counts is the mean of |log(simulated / measured)| over mean TTFT and mean TPOT of
    the first ones.
    """
    first = slice(0, max(1, math.ceil(share * len(run.arrival))))
    measured = run.latencies()

    def distance(log_factor: float) -> float:
        ours = result_latencies(simulated(run, profile, math.exp(log_factor)))
        means = [np.nanmean(ours[name][first]) / np.nanmean(measured[name][first]) for name in ("ttft", "tpot")]
        return float(np.abs(np.log(means)).mean())

    # Preemptions make the distance rough on a small scale: a grid finds the valley, and the search goes on in it.
    grid = np.linspace(*np.log(_FACTORS), 24)
    best = int(np.argmin([distance(x) for x in grid]))
    bounds = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    return math.exp(minimize_scalar(distance, bounds=bounds, method="bounded", options={"xatol": 1e-3}).x)


def _request(path: Path, number: int, line: str) -> list[float]:
    try:
        row = json.loads(line)
        values = [float(row[name]) for name in _NUMBERS]
    except (ValueError, TypeError, KeyError) as error:
        expected = f"a JSON object with numbers {', '.join(_NUMBERS)}"
        raise ValueError(f"{path}, line {number} must be {expected}, got {line[:120]!r} ({error!r})") from None
    prompt, output, queued, first, last = values
    if not (prompt >= 1 and output >= 1 and queued <= first <= last < math.inf):
        problem = "input_toks >= 1, output_toks >= 1 and queued_ts <= first_token_ts <= last_token_ts"
        raise ValueError(f"{path}, line {number} must have {problem}, got {values}")
    return values


def _seconds(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in ("t", "running", "waiting", "kv_cache_pct")}


def _latencies(arrival: np.ndarray, first: np.ndarray, finish: np.ndarray, output: np.ndarray) -> dict[str, np.ndarray]:
    tpot = np.where(output > 1, (finish - first) / np.maximum(1, output - 1), np.nan)
    return {"ttft": first - arrival, "tpot": tpot, "e2el": finish - arrival}
