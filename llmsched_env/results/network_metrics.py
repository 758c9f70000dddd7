"""Numbers of a run of a network: tasks, engines, and the backlog of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.results import metrics
from llmsched_env.slo import SLO


class NetworkRows(metrics.CommonRows, Protocol):
    """What the numbers of a run of a network are computed from; `NetworkResult` is one.

    Attributes:
        tasks: `TASK_DTYPE` records.
        engines: the machines that were simulated.
    """

    @property
    def tasks(self) -> np.recarray: ...
    @property
    def engines(self) -> tuple[EngineConfig, ...]: ...


def backlog(result: NetworkRows, t: float | np.ndarray, engine: int | None = None) -> int | np.ndarray:
    """Tokens of work of calls that are at an engine at time(s) `t` in s, of all engines or of one.

    A call adds its tokens when it is ready, and a batch removes its tokens when it ends. With calls that move from
    prefill to decode engines, only the total over all engines is known.

    Args:
        result: the run.
        t: time(s) in s.
        engine: index of the engine; None: all engines.

    Returns:
        An int for a scalar `t`, else i8 of the shape of `t`.

    Raises:
        ValueError: if the run was recorded without batches.
    """
    return metrics.backlog(_of_engine(result, engine), t)


def summary(result: NetworkRows, slo: SLO | None = None) -> dict[str, float]:
    """Numbers of tasks, engines and calls.

    - `completed_tasks`, `task_throughput` (1/s), `mean_/median_/p90_/p95_/p99_task_latency` (s, from arrival to the end
      of the last call) of finished tasks;
    - `mean_slowdown`: latency over the time of the task's critical path on an idle engine;
    - `utilisation_<g>`: share of time in which engine g ran a batch; `mean_utilisation`; `imbalance`: largest over mean
      busy time of the engines, minus 1;
    - the numbers of `metrics.summary` over all calls.
    """
    tasks = result.tasks
    done = ~np.isnan(tasks.finish)
    latency = (tasks.finish - tasks.arrival)[done]
    numbers = {
        "tasks": len(tasks),
        "completed_tasks": int(done.sum()),
        "task_throughput": done.sum() / result.end if result.end > 0 else np.nan,
        **_statistics("task_latency", latency),
        "mean_slowdown": float(np.mean(latency / tasks.critical_path[done])) if done.any() else np.nan,
    }
    if result.batches is not None and result.end > 0:
        busy = np.bincount(result.batches.engine, weights=result.batches.duration, minlength=len(result.engines))
        share = busy / result.end
        numbers |= {f"utilisation_{g}": float(share[g]) for g in range(len(share))}
        numbers["mean_utilisation"] = float(share.mean())
        numbers["imbalance"] = float(busy.max() / busy.mean() - 1) if busy.sum() > 0 else 0.0
    calls = metrics.summary(_of_engine(result, None), slo)
    return {name: float(value) for name, value in (numbers | calls).items()}


def _statistics(name: str, values: np.ndarray) -> dict[str, float]:
    if len(values) == 0:
        return dict.fromkeys((f"{which}_{name}" for which in ("mean", "median", "p90", "p95", "p99")), np.nan)
    return {
        f"mean_{name}": float(values.mean()),
        f"median_{name}": float(np.median(values)),
        **{f"p{p}_{name}": float(np.percentile(values, p)) for p in (90, 95, 99)},
    }


@dataclass(frozen=True, slots=True)
class _EngineRows:
    """The rows of one engine, or of all engines as one; see `metrics.RunRows`."""

    requests: np.recarray
    batches: np.recarray | None
    token_gaps: np.ndarray
    end: float
    engine: EngineConfig
    stalled: bool

    @property
    def drained(self) -> bool:
        return not np.any(self.requests.status == "active")


def _of_engine(result: NetworkRows, engine: int | None) -> _EngineRows:
    """The rows of one engine, or of all."""
    requests, batches = result.requests, result.batches
    if engine is not None:
        requests = requests[requests.engine == engine]
        batches = None if batches is None else batches[batches.engine == engine]
    return _EngineRows(
        requests=requests,
        batches=batches,
        token_gaps=result.token_gaps,
        end=result.end,
        engine=result.engines[engine or 0],
        stalled=result.stalled,
    )
