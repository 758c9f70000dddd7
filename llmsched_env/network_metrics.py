"""Numbers of a run of a network: tasks, engines, and the backlog of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llmsched_env import metrics

if TYPE_CHECKING:
    from llmsched_env.simulator.records import NetworkResult
    from llmsched_env.slo import SLO


def backlog(result: NetworkResult, t: float | np.ndarray, engine: int | None = None) -> int | np.ndarray:
    """Tokens of work of calls that are at an engine at time(s) `t` in s, of all engines or of one.

    A call brings its tokens when it is ready, and a batch takes its own away when it ends. (With calls that move from
    prefill to decode engines only the total over all engines is known.)

    Raises:
        ValueError: if the run was recorded without batches.
    """
    return metrics.backlog(_of_engine(result, engine), t)


def summary(result: NetworkResult, slo: SLO | None = None) -> dict[str, float]:
    """What a run came to.

    - `completed_tasks`, `task_throughput` (1/s), `mean_/median_/p99_task_latency` (s, from arrival to the end of the
      last call) of tasks that finished;
    - `mean_slowdown`: latency over the time on the task's critical path alone on an idle engine;
    - `utilisation_<g>`: share of time in which engine g ran a batch; `mean_utilisation`; `imbalance`: largest over mean
      of the engines' busy time, less 1;
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
        return dict.fromkeys((f"mean_{name}", f"median_{name}", f"p99_{name}"), np.nan)
    return {
        f"mean_{name}": float(values.mean()),
        f"median_{name}": float(np.median(values)),
        f"p99_{name}": float(np.percentile(values, 99)),
    }


def _of_engine(result: NetworkResult, engine: int | None) -> metrics.Result:
    """The rows of one engine, or of all, as those of a run."""
    from llmsched_env.simulator.records import Result

    requests, batches = result.requests, result.batches
    if engine is not None:
        requests = requests[requests.engine == engine]
        batches = None if batches is None else batches[batches.engine == engine]
    return Result(
        requests=requests,
        batches=batches,
        batch_entries=None,
        token_gaps=result.token_gaps,
        end=result.end,
        stalled_since=result.end if result.stalled else float("nan"),
        scheduler=result.schedulers[engine or 0],
        workload=result.workload,
        seed=result.seed,
        engine=result.engines[engine or 0],
    )
