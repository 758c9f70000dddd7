"""Putting requests and engines into a world as they are at time 0."""

import numpy as np

from llmsched_env.simulator import state as s
from llmsched_env.simulator.batch_time import DECIDE_REQUEST, HOST_BATCH
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.random import seeded
from llmsched_env.simulator.request_table import RequestTable
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import World

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
    for block in (
        world.batch_counts,
        world.totals,
        world.count,
        world.time,
        world.client_memory,
        world.engine_memory,
        world.heap,
    ):
        block[g] = 0
    world.rng[g] = seeded(seed)
    world.law[g] = engine.law()
    world.law[g, [HOST_BATCH, DECIDE_REQUEST]] += scheduler.decision_time
    params = scheduler.numbers()
    world.params[g, : len(params)] = params
    blocks = s.UNLIMITED if engine.kv_blocks is None else engine.kv_blocks
    world.kv[g] = (blocks, blocks, engine.block_size, 0, engine.prefix_caching, engine.swap_blocks)
    world.time[g, s.STALLED_SINCE] = np.nan
    count = world.count[g]
    count[s.MAX_TOKENS] = engine.token_budget
    count[s.MAX_SEQS] = s.UNLIMITED if engine.max_num_seqs is None else engine.max_num_seqs
    count[s.SEPARATE] = engine.separate
    count[s.AHEAD] = engine.schedule_ahead
    count[s.LAST] = 2  # any but the one that is built first
    count[[s.PARAM_TOKENS, s.PARAM_SEQS, s.PARAM_ACTIVE]] = scheduler.limit_places()


def blocks_to_cache(engine: EngineConfig, table: "RequestTable") -> int:
    """Most blocks that its prefix cache may come to hold; with unlimited memory, all that there will be."""
    if not engine.prefix_caching:
        return 0
    if engine.kv_blocks is not None:
        return engine.kv_blocks
    return int(np.sum((table.prompt_tokens + table.output_tokens) // engine.block_size))
