"""Putting requests and engines into a world as they are at time 0."""

from typing import TYPE_CHECKING

import numpy as np

from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.random import seeded
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import UNLIMITED
from llmsched_env.simulator.world import World

if TYPE_CHECKING:
    from llmsched_env.workloads.table import RequestTable

_UNKNOWN = ("arrival", "first_token", "last_token_time", "first_scheduled", "finish", "left")


def fill_requests(world: World, rows: slice, table: "RequestTable", scheduler: Scheduler) -> None:
    """Write the requests of `table` to the first of these rows of the world, which are blank after them."""
    req, hidden = world.req, world.hidden
    for column in (*req, *hidden, world.request_memory):
        column[rows] = 0
    rows = slice(rows.start, rows.start + len(table))
    for name in _UNKNOWN:
        getattr(req if hasattr(req, name) else hidden, name)[rows] = np.nan
    for name in ("prompt_tokens", "client", "klass", "priority", "session", "shared_tokens", "ttft_slo", "tpot_slo"):
        getattr(req, name)[rows] = getattr(table, name)
    req.prefill_tokens[rows] = table.prompt_tokens
    req.parent[rows] = np.where(table.parent < 0, -1, table.parent + rows.start)
    req.known_output[rows] = known_output(table, scheduler)
    req.task[rows] = 0
    hidden.timeout[rows] = table.timeout
    hidden.ready[rows] = table.arrival
    hidden.output_tokens[rows] = hidden.leave_after[rows] = table.output_tokens


def known_output(table: "RequestTable", scheduler: Scheduler) -> np.ndarray:
    """f8[n]: what the scheduler is told of output lengths: nothing (nan), predictions, or the truth."""
    if scheduler.needs_lengths == "predicted":
        return table.predicted_output
    if scheduler.needs_lengths == "true":
        return table.output_tokens.astype(np.float64)
    return np.full(len(table), np.nan)


def reset_engine(world: World, g: int, engine: EngineConfig, scheduler: Scheduler, seed: int) -> None:
    """Put engine `g` back to time 0, idle, with nothing to come."""
    for array in (world.client_memory, world.engine_memory, world.heap):
        array[g] = 0
    for array in (world.batch_counts, world.totals, world.engines):
        array[g] = np.zeros((), array.dtype)
    world.rng[g] = seeded(seed)
    world.law[g] = engine.law()[0]
    world.law[g].host_batch += scheduler.decision_time[0]
    world.law[g].decide_request += scheduler.decision_time[1]
    params = scheduler.numbers()
    world.params[g, : len(params)] = params
    blocks = UNLIMITED if engine.kv_blocks is None else engine.kv_blocks
    kv = world.kv[g]
    kv.free = kv.total = blocks
    kv.block_size = engine.block_size
    kv.cached = 0
    kv.prefix_caching = engine.prefix_caching
    kv.swap_free = engine.swap_blocks
    state = world.engines[g]
    state.stalled_since = np.nan
    state.token_budget = engine.token_budget
    state.max_num_seqs = UNLIMITED if engine.max_num_seqs is None else engine.max_num_seqs
    state.separate = engine.separate
    state.schedule_ahead = engine.schedule_ahead
    state.ended = 2  # any but the one that is built first
    places = scheduler.limit_places()
    state.token_budget_param, state.max_num_seqs_param, state.max_num_active_seqs_param = places


def blocks_to_cache(engine: EngineConfig, table: "RequestTable") -> int:
    """Most blocks that its prefix cache may come to hold; with unlimited memory, all that there will be."""
    if not engine.prefix_caching:
        return 0
    if engine.kv_blocks is not None:
        return engine.kv_blocks
    return int(np.sum((table.prompt_tokens + table.output_tokens) // engine.block_size))
