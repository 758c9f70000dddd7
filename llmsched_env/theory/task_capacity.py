"""Tasks that a network of engines can sustain, from the work of their calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.task_table import TaskTable
from llmsched_env.theory.capacity import capacity


@dataclass(frozen=True, slots=True)
class _Lengths:
    prompt: np.ndarray
    output: np.ndarray

    def length_sample(self) -> tuple[np.ndarray, np.ndarray]:
        return self.prompt, self.output


def task_capacity(engines: EngineConfig | Sequence[EngineConfig], tasks: TaskTable) -> float:
    """Tasks/s at which the busiest engine has load 1, under the best routing.

    Calls that are pinned to an engine load that one; the others are divided so that the loads of engines are as equal
    as pinned calls allow. Each engine serves its mix of calls at the rate `theory.capacity`, every prompt in full: what
    is found in a prefix cache comes on top.

    Below it, every engine's load is below 1, which suffices for stability under work-conserving schedulers if engines
    pass calls on without cycles (arXiv 2504.07347, section 5).

    Args:
        engines: the machines, or one.
        tasks: tasks that represent the mix; times do not matter.

    Raises:
        ValueError: no tasks, or a call pinned to an engine that there is not.
    """
    engines = tuple(engines) if isinstance(engines, Sequence) else (engines,)
    if not len(tasks):
        raise ValueError("tasks must hold at least one call, got none")
    if tasks.engine.max() >= len(engines):
        raise ValueError(f"engine must be below {len(engines)}, got {tasks.engine.max()}")
    pinned = np.array([_seconds(engine, tasks, tasks.engine == g) for g, engine in enumerate(engines)])
    free = tasks.engine < 0
    if not free.any():
        return tasks.num_tasks / pinned.max()
    speed = 1 / np.array([_seconds(engine, tasks, free) for engine in engines])
    level = (1 + float(pinned @ speed)) / float(speed.sum())  # of all engines if no pinned load is above it
    return tasks.num_tasks / max(level, float(pinned.max()))


def _seconds(engine: EngineConfig, tasks: TaskTable, which: np.ndarray) -> float:
    """Time an engine needs for these calls."""
    if not which.any():
        return 0.0
    lengths = _Lengths(tasks.calls.prompt_tokens[which], tasks.calls.output_tokens[which])
    return float(np.count_nonzero(which)) / capacity(engine, lengths)
