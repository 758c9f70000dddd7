"""Reading the rows of a run out of a world."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from llmsched_env.simulator import state as s
from llmsched_env.simulator.records import BATCH_DTYPE, ENTRY_DTYPE, REQUEST_DTYPE, STATUSES
from llmsched_env.simulator.request_table import RequestTable
from llmsched_env.simulator.state import World


def request_rows(
    world: World, table: RequestTable, first: int, engines: Iterable[int], tasks: np.ndarray | None = None
) -> np.recarray:
    """A row for each request of `table` that has arrived.

    Args:
        world: where they stand.
        table: what was loaded.
        first: its first row in the world.
        engines: those that may serve them.
        tasks: the task of each; None: they have none.
    """
    arrived = np.flatnonzero(~np.isnan(world.req.arrival[first : first + len(table)]))
    rows = np.zeros(len(arrived), REQUEST_DTYPE)
    for name in REQUEST_DTYPE.names:
        source = world.req if hasattr(world.req, name) else world.hidden
        if hasattr(source, name):
            column = getattr(source, name)[first + arrived]
            rows[name] = np.array(STATUSES)[column] if name == "status" else column
        elif hasattr(table, name):
            rows[name] = getattr(table, name)[arrived]
    for g in engines:
        _leave_out_running(world, g, first, arrived, rows)
    rows["task"] = -1 if tasks is None else tasks[arrived]
    return rows.view(np.recarray)


def _leave_out_running(world: World, g: int, first: int, arrived: np.ndarray, rows: np.ndarray) -> None:
    """Take the tokens of batches under way, which count as computed in the world, out of the rows."""
    count = world.count[g]
    under_way = [count[s.RUN]] if count[s.PHASE] == s.BUSY_PHASE else []
    if count[s.PENDING] == 1:
        under_way.append((count[s.BUILD] + 2) % 3)
    for k in under_way:
        n = world.batch_counts[g, k, s.NUM_SEQS]
        requests = world.batch_requests[g, k, :n]
        place = np.searchsorted(arrived, requests - first)
        lost = world.req.computed[requests] == 0  # to a preemption after the decision
        rows["computed"][place] -= np.where(lost, 0, world.batch_tokens[g, k, :n])
        rows["recomputed"][place] -= np.where(lost, world.batch_tokens[g, k, :n], 0)


def batch_rows(world: World) -> np.recarray | None:
    """`BATCH_DTYPE` rows of all engines, None if they were not recorded."""
    return _written(world, world.record_batches, s.USED_BATCHES, 2, BATCH_DTYPE)


def entry_rows(world: World) -> np.recarray | None:
    """`ENTRY_DTYPE` rows of all engines, None if they were not recorded."""
    return _written(world, world.record_entries, s.USED_ENTRIES, 3, ENTRY_DTYPE)


def entry_contexts(world: World) -> np.ndarray | None:
    """i8[e]: tokens in the KV cache before each entry, None if entries were not recorded."""
    if world.record_use[s.RECORD_LEVEL] < 3:
        return None
    return world.record_entries[: world.record_use[s.USED_ENTRIES], 4].copy()


def gap_rows(world: World) -> np.ndarray:
    """f8[n, 3]: inter-token gaps, see `Result.token_gaps`."""
    return world.record_gaps[: world.record_use[s.USED_GAPS], :3].copy()


def _written(world: World, record: np.ndarray, place: int, level: int, dtype: np.dtype) -> np.recarray | None:
    if world.record_use[s.RECORD_LEVEL] < level:
        return None
    written = record[: world.record_use[place]]
    rows = np.zeros(len(written), dtype)
    for k, field in enumerate(dtype.names):
        rows[field] = written[:, k]
    return rows.view(np.recarray)
