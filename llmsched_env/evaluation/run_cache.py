"""Digests of everything that determines a run: the names under which finished runs are cached.

A cached run is reused only if sources, scheduler, requests, engine and limits are exactly the same.
"""

from __future__ import annotations

import hashlib
import inspect
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numba
import numpy as np

from llmsched_env import policies, sb3
from llmsched_env.code_cache import compiled_folders, source_digest
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.workloads.closed_loop import ClosedLoop
from llmsched_env.workloads.workload import Workload

POLICIES, SB3 = Path(policies.__file__).parent, Path(sb3.__file__).parent


def versions() -> dict[str, str]:
    """Versions of everything that all numbers depend on."""
    return {
        "sources": source_digest(),
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
    }


def commit() -> str:
    """The commit of the sources, with "-dirty" if they were changed since; "unknown" outside a repository."""
    git = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return "unknown"
    return found.stdout.strip() or "unknown"


def digest_of(*what: Any) -> str:
    """Digest, 16 hex digits, of the sources of simulator, environments and baselines, and of `what`.

    The sources of policies are in `scheduler_digest`, so that editing a policy does not invalidate runs of baselines.
    """
    sources = source_digest(folder for folder in compiled_folders() if folder != POLICIES)
    return hashlib.sha256(repr((sources, *what)).encode()).hexdigest()[:16]


def file_name(*parts: str) -> str:
    """The parts joined by underscores, without characters that a file system might refuse."""
    return "_".join(re.sub(r"[^\w.=-]+", "-", part) for part in parts)


def describe(scheduler: Scheduler) -> str:
    """A scheduler with the values of all its parameters."""
    values = zip(scheduler.params, scheduler.param_values(), strict=True)
    text = f"{scheduler.name}({', '.join(f'{name}={value:g}' for name, value in values)})"
    controller = scheduler.controller
    if controller is None:
        return text
    at_will = "whenever it asks" if scheduler.asks else "before every batch"
    when = at_will if controller.interval is None else f"every {controller.interval:g} s"
    return f"{text}, parameters set {when} by {type(controller).__name__}"


def distinct_seeds(
    workload: Workload | ClosedLoop, seeds: Sequence[int], engine: EngineConfig
) -> tuple[tuple[int, ...], str]:
    """The seeds to run, and a digest of their requests.

    These are all seeds, or only the first one if every seed gives the same run: the same requests, as with a trace, on
    an engine without noise.
    """
    digests = [_table_digest(workload.sample(seed)) for seed in seeds]
    if len(set(digests)) == 1 and engine.step_noise == 0:
        return (seeds[0],), digests[0]
    return tuple(seeds), hashlib.sha256("".join(digests).encode()).hexdigest()


def _table_digest(table: RequestTable | TaskTable) -> str:
    digest = hashlib.sha256()
    if isinstance(table, TaskTable):
        for array in (table.task, table.delay, table.engine, table.edges):
            digest.update(np.ascontiguousarray(array, dtype=float).tobytes())
        if table.pool is not None:
            digest.update(table.pool.think.tobytes() + repr((table.pool.users, table.pool.until)).encode())
        table = table.calls
    for column in fields(table):
        digest.update(np.ascontiguousarray(getattr(table, column.name), dtype=float).tobytes())
    return digest.hexdigest()


def scheduler_digest(scheduler: Scheduler) -> tuple[Any, ...]:
    """Everything that determines a scheduler beyond the sources in `digest_of`: its code, parameters, learned weights.

    Raises:
        ValueError: if the scheduler has a controller without a digest of its weights.
    """
    compose = getattr(scheduler.compose, "py_func", scheduler.compose)
    weights = None
    if scheduler.controller is not None:
        weights = getattr(scheduler.controller, "digest", None)
        if weights is None:
            raise ValueError(
                f"scheduler {scheduler.name!r}: cells can only be kept if its controller has a `digest` that changes "
                "with its weights; add one, or compare with folder=None"
            )
    code = [source_of(compose), *([] if scheduler.controller is None else [source_of(type(scheduler.controller))])]
    if scheduler.controller is not None:
        code.append(source_digest([SB3]))
    if scheduler.controller is not None or POLICIES in Path(inspect.getfile(compose)).resolve().parents:
        code.append(source_digest([POLICIES]))
    return describe(scheduler), scheduler.weights, scheduler.decision_time, compose.__qualname__, code, weights


def source_of(thing: Any) -> str:
    """Digest of the file that defines a module, class or function."""
    return hashlib.sha256(Path(inspect.getfile(thing)).read_bytes()).hexdigest()
