"""Rows of a run: written while an engine runs, and read out of a world at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from llmsched_env.compiled import compiled
from llmsched_env.fields import Records, field_names
from llmsched_env.results.records import BATCH_DTYPE, ENTRY_DTYPE, REQUEST_DTYPE, STATUSES
from llmsched_env.simulator.state import BUSY_PHASE, DECODE, RECORD_LEVELS
from llmsched_env.simulator.world import World
from llmsched_env.tables.request_table import RequestTable


@compiled(inline=True)
def room_in_records(world, g):
    """Whether the record arrays can take the rows of all batches under way and of one more."""
    recording, engine = world.recording, world.engines[g]
    if recording.level == 0:
        return True
    engines = len(world.engines)
    if engines > 1:  # each may have batches under way whose rows are still to be written
        most = 2 * engines * len(world.waiting[g])
    else:
        most = world.batch_counts[g, engine.executing].num_seqs + engine.num_running + engine.num_waiting
    if recording.num_gaps + most > len(world.record_gaps):
        return False
    if recording.level >= 2 and recording.num_batches + 2 * engines > len(world.record_batches):
        return False
    return recording.level < 3 or recording.num_entries + most <= len(world.record_entries)


@compiled(inline=True)
def describe_decision(world, g, k):
    """Note how things stand as batch `k` has been decided."""
    engine, counts, row = world.engines[g], world.batch_counts[g, k], world.batch_row[g, k]
    row.prefill_tokens = counts.prefill_tokens
    row.decode_tokens = counts.decode_tokens
    row.num_seqs = counts.num_seqs
    row.num_waiting = engine.num_waiting
    row.kv_blocks_used = world.kv[g].total - world.kv[g].free
    row.preemptions = engine.preemptions
    row.engine = g
    row.recomputed = engine.recomputed
    row.prefix_hit = engine.prefix_hits
    row.swapped = engine.swapped
    row.num_running = engine.num_running
    row.decided = engine.clock


@compiled(inline=True)
def describe_start(world, g, k):
    """Note how things stand as batch `k` starts."""
    engine, row = world.engines[g], world.batch_row[g, k]
    row.start = engine.batch_start
    row.duration = engine.batch_end - engine.batch_start
    row.backlog = engine.backlog
    row.num_in_system = engine.num_in_system


@compiled(inline=True)
def record_batch(world, g, k):
    """Write the rows of batch `k`, which ends now; one that never ends leaves none."""
    recording, num_seqs = world.recording, world.batch_counts[g, k].num_seqs
    world.record_batches[recording.num_batches] = world.batch_row[g, k]
    if recording.level >= 3:
        for place in range(num_seqs):
            entry = world.record_entries[recording.num_entries + place]
            entry.batch = recording.num_batches
            entry.request = world.batch_requests[g, k, place]
            entry.tokens = world.batch_tokens[g, k, place]
            entry.is_prefill = 0 if world.batch_kinds[g, k, place] == DECODE else 1
            entry.context = world.batch_contexts[g, k, place]
            entry.engine = g
        recording.num_entries += num_seqs
    recording.num_batches += 1


@compiled(inline=True)
def record_gap(world, g, end, gap):
    """Count an inter-token gap; equal gaps of one batch share a row."""
    recording, gaps = world.recording, world.record_gaps
    if recording.num_gaps > 0:
        last = gaps[recording.num_gaps - 1]
        if last.time == end and last.gap == gap and last.engine == g:
            last.count += 1
            return
    row = gaps[recording.num_gaps]
    row.time = end
    row.gap = gap
    row.count = 1
    row.engine = g
    recording.num_gaps += 1


RECORDS = ("record_batches", "record_entries", "record_gaps")
"""The arrays of a `World` that hold rows; they grow by themselves."""


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
    for name in field_names(REQUEST_DTYPE):
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
    engine = world.engines[g]
    under_way = [engine.executing] if engine.phase == BUSY_PHASE else []
    if engine.pending == 1:
        under_way.append((engine.building + 2) % 3)
    for k in under_way:
        n = world.batch_counts[g, k].num_seqs
        requests = world.batch_requests[g, k, :n]
        place = np.searchsorted(arrived, requests - first)
        lost = world.req.computed[requests] == 0  # to a preemption after the decision
        rows["computed"][place] -= np.where(lost, 0, world.batch_tokens[g, k, :n])
        rows["recomputed"][place] -= np.where(lost, world.batch_tokens[g, k, :n], 0)


def with_longer_records(world: World) -> World:
    """The world with twice the room in those record arrays that lack what `room_in_records` asks for."""
    engines, capacity = world.waiting.shape
    recording, room = world.recording, 2 * engines * capacity
    grown: dict[str, Any] = {}
    for name, level, written in (
        ("record_gaps", RECORD_LEVELS["requests"], recording.num_gaps),
        ("record_batches", RECORD_LEVELS["batches"], recording.num_batches),
        ("record_entries", RECORD_LEVELS["entries"], recording.num_entries),
    ):
        rows = getattr(world, name)
        if recording.level >= level and written + room > len(rows):
            more = np.zeros(max(len(rows), capacity), rows.dtype)
            grown[name] = np.concatenate([rows, more]).view(Records)
    return world._replace(**grown)


def batch_rows(world: World) -> np.recarray | None:
    """`BATCH_DTYPE` rows of all engines, None if they were not recorded."""
    if world.recording.level < RECORD_LEVELS["batches"]:
        return None
    return _rows(world.record_batches[: world.recording.num_batches], BATCH_DTYPE)


def entry_rows(world: World) -> np.recarray | None:
    """`ENTRY_DTYPE` rows of all engines, None if they were not recorded."""
    if world.recording.level < RECORD_LEVELS["entries"]:
        return None
    return _rows(world.record_entries[: world.recording.num_entries], ENTRY_DTYPE)


def entry_contexts(world: World) -> np.ndarray | None:
    """i8[e]: tokens in the KV cache before each entry, None if entries were not recorded."""
    if world.recording.level < RECORD_LEVELS["entries"]:
        return None
    return np.array(world.record_entries.context[: world.recording.num_entries])


def gap_rows(world: World) -> np.ndarray:
    """f8[n, 3]: inter-token gaps, see `Result.token_gaps`."""
    gaps = world.record_gaps[: world.recording.num_gaps]
    return np.column_stack([gaps["time"], gaps["gap"], gaps["count"]])


def _rows(written: np.ndarray, dtype: np.dtype) -> np.recarray:
    rows = np.zeros(len(written), dtype)
    for name in field_names(dtype):
        rows[name] = written[name]
    return rows.view(np.recarray)
