"""The rows of a network's tasks."""

from __future__ import annotations

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.results.records import TASK_DTYPE
from llmsched_env.simulator.network_state import Network
from llmsched_env.simulator.world import World
from llmsched_env.tables.task_table import TaskTable


def task_rows(world: World, network: Network, tasks: TaskTable, engine: EngineConfig, clock: float) -> np.recarray:
    """`TASK_DTYPE` rows of the tasks that have arrived by `clock`; `engine` is that of their `critical_path`."""
    calls = tasks.calls
    arrived = np.flatnonzero(world.tasks.arrival[: tasks.num_tasks] <= clock)
    first = np.searchsorted(tasks.task, np.arange(tasks.num_tasks))
    seconds = isolated_seconds(engine, calls.prompt_tokens, calls.output_tokens)
    rows = np.zeros(len(arrived), TASK_DTYPE)
    rows["arrival"] = world.tasks.arrival[arrived]
    rows["finish"] = network.task_finish[arrived]
    rows["calls"] = np.bincount(tasks.task, minlength=tasks.num_tasks)[arrived]
    rows["finished"] = rows["calls"] - world.tasks.calls_left[arrived].astype(np.int64)
    work = calls.prompt_tokens + calls.output_tokens - 1 + engine.separate
    rows["tokens"] = np.bincount(tasks.task, weights=work, minlength=tasks.num_tasks)[arrived]
    rows["critical_path"] = tasks.critical_path(seconds)[arrived]
    rows["klass"] = calls.klass[first[arrived]]
    return rows.view(np.recarray)


def isolated_seconds(engine: EngineConfig, prompt: np.ndarray, output: np.ndarray) -> np.ndarray:
    """f8[n]: time of calls alone on an idle engine: prefill in the fewest batches, then a token a batch.

    Contexts are taken at their mean, and nothing is found in a prefix cache.
    """
    law, budget = engine.batch_time, engine.token_budget
    chunks = np.ceil(prompt / budget)
    chunk = prompt / chunks
    mean_context = (prompt - chunk) / 2
    prefill = chunks * law.seconds(chunk, 0, chunk * (mean_context + (chunk + 1) / 2), mean_context)
    decodes = output - 1 + engine.separate
    seconds = prefill + decodes * law.seconds(1, prompt + output / 2)
    return np.asarray(seconds + (chunks + decodes) * sum(engine.host_overhead))
