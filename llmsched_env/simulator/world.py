"""A `World`: engines over one table of requests, in plain arrays; and the `View` that a scheduler has of one engine.

Schedulers, observations and compiled loops read the same memory. The fields of records are listed in `simulator.state`.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import typeof, types

from llmsched_env.compiled import compiled, interpreted
from llmsched_env.fields import Records, record_attributes, records
from llmsched_env.machine.batch_time import LAW
from llmsched_env.simulator.state import (
    BATCH_COUNTS,
    BATCH_RECORD,
    CACHE_ENTRY,
    CALL_CLASS,
    ENGINE,
    ENTRY_RECORD,
    GAP_RECORD,
    KV_COUNTS,
    RECORD_LEVELS,
    RECORDING,
    TASK,
    TOTALS,
    Hidden,
    Requests,
    new_requests,
)

NUM_SLOTS = 8  # distinct schedulers in one world


record_attributes("counts", "kv", "law", "totals", "recording")


class Batch(NamedTuple):
    """The batch under construction: the first counts.num_seqs entries of `requests`.

    While it is composed, the tokens of a request in it are `req.scheduled`; `tokens` is filled when it starts.
    """

    requests: np.ndarray
    tokens: np.ndarray
    counts_record: Records  # BATCH_COUNTS[1]

    @property
    def counts(self) -> Any:
        return self.counts_record[0]


class Prefixes(NamedTuple):
    """The prefix cache: a hash table of `entries`; see `simulator.kv_cache`."""

    slots: np.ndarray  # i8[power of 2]: entry by hash, 0: none
    entries: Records  # CACHE_ENTRY[1 + most blocks]
    kv_record: Records  # as in the view
    parent: np.ndarray  # columns of the requests
    shared_tokens: np.ndarray

    @property
    def kv(self) -> Any:
        return self.kv_record[0]


class LastBatch(NamedTuple):
    """The batch that just ended; `duration` in seconds, 0 before the first one."""

    requests: np.ndarray
    tokens: np.ndarray
    duration: float


class Memory(NamedTuple):
    """What a scheduler keeps between batches, sized by its declaration."""

    params: np.ndarray  # f8[p]
    request: np.ndarray  # f8[requests, k]
    client: np.ndarray  # f8[clients, k]
    engine: np.ndarray  # f8[k]
    heap: np.ndarray  # i8[requests]
    rng: np.ndarray  # u8[2]: state of `uniform`, and how many numbers it has drawn


class Own(NamedTuple):
    """Which requests may be at this engine: first, ..., end - 1; of a table that is shared, those `engine` says are."""

    first: int
    end: int
    shared: int  # 1: engines of a network share the table
    engine: np.ndarray  # i8[n]: where each request is or was last


class View(NamedTuple):
    """What `compose` sees: one engine at a batch boundary."""

    req: Requests
    waiting: np.ndarray  # requests in queue order
    running: np.ndarray  # requests in order of admission
    arrived: np.ndarray  # since the last call
    finished: np.ndarray  # since the last call
    last: LastBatch
    batch: Batch
    kv_record: Records  # KV_COUNTS[1]
    prefixes: Prefixes
    tasks: Records  # TASK[tasks]
    classes: Records  # CALL_CLASS[classes]
    onward: np.ndarray  # f8[classes, classes]: calls of each class that the end of one call releases, mean
    engine: int  # its number
    own: Own  # which of the requests may be here
    law_record: Records  # LAW[1]: its batch times as schedulers believe them to be, see `simulator.step_time`
    totals_record: Records  # TOTALS[1]
    clock: float  # s
    mem: Memory

    @property
    def kv(self) -> Any:
        return self.kv_record[0]

    @property
    def law(self) -> Any:
        return self.law_record[0]

    @property
    def totals(self) -> Any:
        return self.totals_record[0]


class World(NamedTuple):
    """G engines and their requests. Shapes: [G, ...] by engine, [n] by request; `cap` = most requests at one engine."""

    req: Requests
    hidden: Hidden
    tasks: Records  # TASK[tasks]
    classes: Records  # CALL_CLASS[classes]
    onward: np.ndarray  # f8[classes, classes]
    waiting: np.ndarray  # i8[G, cap]
    running: np.ndarray
    arrived: np.ndarray
    finished: np.ndarray
    departed: np.ndarray  # i8[G, cap]: see ENGINE.num_departed
    batch_requests: np.ndarray  # i8[G, 3, cap]: the batches under construction, running, and before
    batch_tokens: np.ndarray
    batch_kinds: np.ndarray  # CHUNK, PROMPT_END or DECODE
    batch_contexts: np.ndarray  # tokens computed before, kept where entries are recorded
    batch_counts: Records  # BATCH_COUNTS[G, 3]
    events: np.ndarray  # i8[G, cap]: heap of arrivals to come, by `hidden.ready`
    kv: Records  # KV_COUNTS[G]
    cache_slots: np.ndarray  # i8[G, power of 2]
    cache_entries: Records  # CACHE_ENTRY[G, 1 + most blocks]
    totals: Records  # TOTALS[G]
    engines: Records  # ENGINE[G]
    law: Records  # LAW[G]: the batch times
    believed_law: Records  # LAW[G]: what schedulers and routers take them for
    batch_row: Records  # BATCH_RECORD[G, 3]: the rows of batches under way
    params: np.ndarray  # f8[G, p]
    request_memory: np.ndarray  # f8[n, k]
    client_memory: np.ndarray  # f8[G, clients, k]
    engine_memory: np.ndarray  # f8[G, k]
    heap: np.ndarray  # i8[G, h]
    rng: np.ndarray  # u8[G, 2]: the scheduler's stream
    noise_rng: np.ndarray  # u8[G, 2]: that of step noise, from which two numbers a step are drawn
    record_batches: Records  # BATCH_RECORD[rows]
    record_entries: Records  # ENTRY_RECORD[rows]
    record_gaps: Records  # GAP_RECORD[rows]
    recording_record: Records  # RECORDING[1]

    @property
    def recording(self) -> Any:
        return self.recording_record[0]


REQUEST_LISTS = ("waiting", "running", "arrived", "finished", "departed", "events", "heap", "batch_requests")
"""The arrays of a `World` that hold numbers of requests, which change where the rows of their engine move."""


def new_world(
    engines: int,
    capacity: int,
    num_params: int = 0,
    request_columns: int = 0,
    client_columns: int = 0,
    clients: int = 1,
    engine_columns: int = 0,
    heap: bool = False,
    cached_blocks: int = 0,
    record: str = "off",
    requests: int | None = None,
    tasks: int = 1,
    classes: int = 1,
) -> World:
    """A world of `engines` idle engines with room for `capacity` requests each.

    Args:
        engines: how many.
        capacity: most requests at one engine.
        num_params: parameters of the scheduler.
        request_columns: columns of memory that it keeps by request.
        client_columns: columns of memory that it keeps by client.
        clients: number of clients.
        engine_columns: numbers that it keeps for the engine.
        heap: whether it has a heap of requests.
        cached_blocks: most blocks that each prefix cache may hold, 0 without prefix caching.
        record: level of recording.
        requests: rows of the table of requests; None: `capacity` for each engine, which then has a block of its own.
        tasks: rows of the table of tasks.
        classes: of calls.
    """
    ints = lambda *shape: np.zeros(shape, np.int64)  # noqa: E731
    floats = lambda *shape: np.zeros(shape, np.float64)  # noqa: E731
    rows = engines * capacity if requests is None else requests
    visible, hidden = new_requests(rows)
    level = RECORD_LEVELS[record]
    recording = records(RECORDING)
    recording.level = level
    return World(
        req=visible,
        hidden=hidden,
        tasks=records(TASK, tasks),
        classes=records(CALL_CLASS, classes),
        onward=floats(classes, classes),
        waiting=ints(engines, capacity),
        running=ints(engines, capacity),
        arrived=ints(engines, capacity),
        finished=ints(engines, capacity),
        departed=ints(engines, capacity if requests is not None else 0),
        batch_requests=ints(engines, 3, capacity),
        batch_tokens=ints(engines, 3, capacity),
        batch_kinds=ints(engines, 3, capacity),
        batch_contexts=ints(engines, 3, capacity if level >= RECORD_LEVELS["entries"] else 0),
        batch_counts=records(BATCH_COUNTS, (engines, 3)),
        events=ints(engines, capacity),
        kv=records(KV_COUNTS, engines),
        cache_slots=ints(engines, 2 ** (2 * cached_blocks).bit_length()),
        cache_entries=records(CACHE_ENTRY, (engines, 1 + cached_blocks)),
        totals=records(TOTALS, engines),
        engines=records(ENGINE, engines),
        law=records(LAW, engines),
        believed_law=records(LAW, engines),
        batch_row=records(BATCH_RECORD, (engines, 3)),
        params=floats(engines, num_params),
        request_memory=floats(rows, request_columns),
        client_memory=floats(engines, clients, client_columns),
        engine_memory=floats(engines, engine_columns),
        heap=ints(engines, capacity if heap else 0),
        rng=np.zeros((engines, 2), np.uint64),
        noise_rng=np.zeros((engines, 2), np.uint64),
        record_batches=records(BATCH_RECORD, 4096 if level >= RECORD_LEVELS["batches"] else 0),
        record_entries=records(ENTRY_RECORD, 65536 if level >= RECORD_LEVELS["entries"] else 0),
        record_gaps=records(GAP_RECORD, 8192 if level >= RECORD_LEVELS["requests"] else 0),
        recording_record=recording,
    )


@compiled(inline=True)
def prefixes_of(world, g):
    """The `Prefixes` of engine `g`."""
    return Prefixes(
        world.cache_slots[g], world.cache_entries[g], world.kv[g : g + 1], world.req.parent, world.req.shared_tokens
    )


@compiled(inline=True)
def _own(world, g):
    rows, shared = world.waiting.shape[1], world.engines[g].networked
    first = 0 if shared == 1 else g * rows
    return Own(first, len(world.req.phase) if shared == 1 else first + rows, shared, world.hidden.engine)


@compiled(inline=True)
def view_of(world, g):
    """The `View` of engine `g`; its arrays are the world's own memory."""
    engine = world.engines[g]
    head, building, ended = engine.waiting_head, engine.building, engine.ended
    return View(
        world.req,
        world.waiting[g][head : head + engine.num_waiting],
        world.running[g][: engine.num_running],
        world.arrived[g][: engine.num_arrived],
        world.finished[g][: engine.num_finished],
        LastBatch(
            world.batch_requests[g, ended][: engine.num_ended],
            world.batch_tokens[g, ended][: engine.num_ended],
            engine.ended_duration,
        ),
        Batch(
            world.batch_requests[g, building],
            world.batch_tokens[g, building],
            world.batch_counts[g, building : building + 1],
        ),
        world.kv[g : g + 1],
        prefixes_of(world, g),
        world.tasks,
        world.classes,
        world.onward,
        g,
        _own(world, g),
        world.believed_law[g : g + 1],
        world.totals[g : g + 1],
        engine.clock,
        Memory(
            world.params[g],
            world.request_memory,
            world.client_memory[g],
            world.engine_memory[g],
            world.heap[g],
            world.rng[g],
        ),
    )


_example = new_world(1, 1)
WORLD_TYPE = typeof(_example)
VIEW_TYPE = typeof(interpreted(view_of)(_example, 0))
COMPOSE_TYPE = types.FunctionType(types.float64(VIEW_TYPE))
SCHEDULERS_TYPE = types.UniTuple(COMPOSE_TYPE, NUM_SLOTS)
