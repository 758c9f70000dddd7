"""The state of the simulator: plain arrays, read by schedulers, observations and compiled loops alike.

A `World` holds `G` engines over one table of requests. `View` is what the scheduler of one engine sees of it. Small
integer and float quantities of an engine stand in one row each, under the names below.
"""

from typing import NamedTuple

import numpy as np
from numba import typeof, types

from llmsched_env.simulator.batch_time import LAW_SIZE
from llmsched_env.simulator.compiled import compiled, interpreted

UNLIMITED = 2**40  # a limit that no run can reach

# Phase of a request on its engine.
(
    ABSENT,
    WAITING,
    RUNNING,
    LAST_TOKEN,  # runs; its last token is being computed, nothing of it is left to schedule (only with schedule_ahead)
    PREEMPTED,  # on its way from running to the front of the queue
    EVICTED,  # on its way from running to the back of the queue
    REJECTED,
) = range(7)

# Status of a request in the records.
ACTIVE, FINISHED, STATUS_REJECTED, ABANDONED = range(4)

# `View.batch.counts`: the batch under construction.
(
    NUM_SEQS,  # requests in it
    TOKENS,  # tokens in it
    PREFILL_TOKENS,
    DECODE_TOKENS,  # also the number of requests that decode in it
    TOKEN_LIMIT,  # most tokens allowed in it
    SEQ_LIMIT,  # most requests allowed in it
    ADMITTED,  # requests in it that were waiting until now
    ADMIT_LIMIT,  # most requests that may be admitted in it
    PREEMPTIONS,  # requests preempted while composing it
    REJECTIONS,  # requests rejected while composing it
    DECODE_KV,  # context tokens its decodes read
    PREFILL_PAIRS,  # query-key pairs of its prefill chunks
    PREFILL_CONTEXT,  # context tokens before its prefill chunks
    PREFIX_HITS,  # tokens that requests it admits found in the prefix cache
    SWAPPED,  # KV blocks it moves between GPU and host
    BATCH_COUNTS,
) = range(16)

# `View.kv`: blocks of the KV cache.
(
    KV_FREE,  # held by no request, those that keep a reusable prefix included
    KV_TOTAL,
    KV_BLOCK_SIZE,
    KV_CACHED,  # free ones that keep a reusable prefix
    KV_CACHING,  # 1: prefixes are kept and reused
    KV_SWAP_FREE,  # free blocks on the host; 0 without swapping
    KV_SIZES,
) = range(7)

# `View.prefixes.entries`: a block of the prefix cache. Row 0 is the sentinel of the list of idle ones.
(
    OWNER,  # the request that its tokens are first found in; in row 0: the first unused entry
    PLACE,  # which block of that request
    REFS,  # requests that hold it
    OLDER,  # neighbours among the idle ones, in order of last use; the newest in row 0
    NEWER,  # also links unused entries; the oldest in row 0
    ENTRY_FIELDS,
) = range(6)

# `View.tasks`: columns by task, a graph of calls.
(
    TASK_ARRIVAL,  # s
    TASK_SERVED,  # tokens computed for its calls so far
    TASK_LONGEST,  # tokens of the calls on its longest path that has finished
    TASK_COST,  # known KV token-time of all its calls: sum of s o + o^2/2
    TASK_TAG,  # virtual time at which it would finish if all tasks shared the memory; inf before it arrives
    TASK_CALLS_LEFT,  # calls that have not finished
    TASK_FIELDS,
) = range(7)

# `View.classes`: columns by class of calls, over all engines of a network. From CLASS_ONWARD on: the mean number of
# calls of each class that the end of one call of this class releases.
CLASS_PRESENT, CLASS_WORK, CLASS_ONWARD = range(3)  # calls at an engine now; tokens of a call, mean

# `View.totals`: running totals that an engine can count itself, and the batch that started last.
(
    TOTAL_ARRIVED,
    TOTAL_PROMPT_TOKENS,
    TOTAL_FINISHED,
    TOTAL_GENERATED,
    TOTAL_PREEMPTIONS,
    TOTAL_RECOMPUTED,  # tokens lost to preemption
    TOTAL_PREFIX_HITS,  # tokens found in the prefix cache
    TOTAL_SWAPPED,  # blocks moved between GPU and host
    LATEST_TOKENS,
    LATEST_PREFILL,
    TOTALS,
) = range(11)

# `World.count`: integers of an engine.
(
    PHASE,  # BOUNDARY_PHASE or BUSY_PHASE
    WAITING_HEAD,  # the waiting queue is waiting[head : head + n]
    N_WAITING,
    N_RUNNING,
    N_ARRIVED,  # since the scheduler was last asked
    N_FINISHED,
    N_EVENTS,  # arrivals to come
    IN_SYSTEM,  # requests waiting or running
    BACKLOG,  # tokens of work left in them
    LOST_TOKENS,  # tokens lost to preemption since the last batch started
    LOST_SEATS,  # requests preempted since then
    LOST_HITS,  # tokens found in the prefix cache since then
    LOST_SWAPS,  # blocks moved between GPU and host since then
    BUILD,  # which of three buffers holds the batch under construction,
    RUN,  # the one that runs,
    LAST,  # and the one that ended last
    N_LAST,  # requests in the batch that ended last
    AHEAD,  # 1: a batch is decided while the one before it runs
    PENDING,  # 1: the batch after the running one has been decided
    ASKED,  # 1: the scheduler has been asked for it, and has composed none
    DECIDE,  # 1: stop for a decision before every batch
    DECIDED,  # 1: the decision for this batch has been taken
    OPEN,  # 1: the scheduler has asked for a choice and goes on with the batch under construction
    SLOT,  # which scheduler of the tuple composes the batches
    MAX_TOKENS,  # the engine's limits
    MAX_SEQS,
    SEPARATE,  # 1: first_token="separate"
    PARAM_TOKENS,  # where the scheduler's own limits stand among its parameters; -1: it has none
    PARAM_SEQS,
    PARAM_ACTIVE,
    GAVE_UP,  # 1: a client has hung up, so batches may hold requests that have left
    INCLUSIVE,  # 1: batches may start at the very time that `advance` runs to
    NETWORKED,  # 1: one of a network of engines over shared requests
    N_DEPARTED,  # requests that have left this engine and that the network has not seen off yet
    COUNTS,
) = range(35)
BOUNDARY_PHASE, BUSY_PHASE = range(2)

# `World.time`: floats of an engine.
(
    CLOCK,  # s
    BATCH_START,
    BATCH_END,
    AREA,  # integral of the number in system, request-seconds
    STALLED_SINCE,  # s, nan while batches run
    GOOD,  # requests finished within their SLO
    LAST_DURATION,  # s, of the batch that ended last
    NEXT_EVENT,  # s, when this engine does something next by itself; inf: never
    TIMES,
) = range(9)

# `World.record_use`: rows written; and the level of recording.
USED_BATCHES, USED_ENTRIES, USED_GAPS, RECORD_LEVEL, RECORD_USES = range(5)
RECORD_LEVELS = {"off": 0, "requests": 1, "batches": 2, "entries": 3}
BATCH_COLUMNS, ENTRY_COLUMNS, GAP_COLUMNS = 16, 6, 4
# `World.batch_kinds`: what an entry of a batch is. All but the first yield an output token.
CHUNK, PROMPT_END, DECODE = range(3)

NUM_SLOTS = 8  # distinct schedulers in one world


class Requests(NamedTuple):
    """Columns by request that a deployed scheduler can know. Each is an array of shape [requests]."""

    arrival: np.ndarray  # s; nan before it arrives
    prompt_tokens: np.ndarray
    known_output: np.ndarray  # output tokens: nan, a prediction or the truth, by the scheduler's `needs_lengths`
    prefill_tokens: np.ndarray  # tokens to compute before the next decode: the prompt; after preemption all there are
    computed: np.ndarray  # tokens in the KV cache, those of batches under way included
    generated: np.ndarray  # output tokens so far
    scheduled: np.ndarray  # tokens in the batch under construction
    first_token: np.ndarray  # s; nan until then
    last_token_time: np.ndarray  # s; nan before the first token
    client: np.ndarray
    klass: np.ndarray
    ttft_slo: np.ndarray  # s; inf: none
    tpot_slo: np.ndarray
    priority: np.ndarray  # smaller is more urgent, as in vLLM
    session: np.ndarray
    task: np.ndarray  # to which the call belongs
    hop: np.ndarray  # calls before it on the longest path of its task
    path_left: np.ndarray  # known tokens of work on the longest path from here to the end of its task, itself included
    preemptions: np.ndarray
    parent: np.ndarray  # earlier request whose tokens its prompt begins with; -1: none
    shared_tokens: np.ndarray  # how many leading tokens of the prompt those are
    kv_blocks: np.ndarray  # blocks it holds
    published: np.ndarray  # of these, full ones that the prefix cache knows
    reserved: np.ndarray  # blocks it keeps whether or not it has tokens for them
    swapped: np.ndarray  # blocks it holds on the host
    in_flight: np.ndarray  # output tokens being computed; 0 but with schedule_ahead
    phase: np.ndarray  # ABSENT, WAITING, RUNNING, ...


class Hidden(NamedTuple):
    """Columns by request that only the engine and the records may read."""

    ready: np.ndarray  # s, when it will arrive, or else its client gives up
    timeout: np.ndarray  # s after arrival at which its client gives up
    output_tokens: np.ndarray  # the true length
    leave_after: np.ndarray  # output tokens after which it leaves its engine: all, or fewer if it goes on elsewhere
    engine: np.ndarray  # where it is or was last; -1 before it is routed
    first_scheduled: np.ndarray  # s
    finish: np.ndarray  # s
    left: np.ndarray  # s, when it left the system, finished or not
    recomputed: np.ndarray  # tokens lost to preemption
    prefix_hit: np.ndarray  # tokens found in the prefix cache
    status: np.ndarray


class Batch(NamedTuple):
    """The batch under construction: the first counts[NUM_SEQS] entries of `requests`.

    While it is composed, the tokens of a request in it are `req.scheduled`; `tokens` is filled when it starts.
    """

    requests: np.ndarray
    tokens: np.ndarray
    counts: np.ndarray


class Prefixes(NamedTuple):
    """The prefix cache: a hash table of `entries`; see `simulator.prefix_cache`."""

    slots: np.ndarray  # i8[power of 2]: entry by hash, 0: none
    entries: np.ndarray  # i8[1 + most blocks, ENTRY_FIELDS]
    kv: np.ndarray  # as in the view
    parent: np.ndarray  # columns of the requests
    shared_tokens: np.ndarray


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


class View(NamedTuple):
    """What `compose` sees: one engine at a batch boundary."""

    req: Requests
    waiting: np.ndarray  # requests in queue order
    running: np.ndarray  # requests in order of admission
    arrived: np.ndarray  # since the last call
    finished: np.ndarray  # since the last call
    last: LastBatch
    batch: Batch
    kv: np.ndarray
    prefixes: Prefixes
    tasks: np.ndarray  # f8[tasks, TASK_FIELDS]
    classes: np.ndarray  # f8[classes, CLASS_ONWARD + classes]
    engine: int  # its number
    law: np.ndarray  # f8[LAW_SIZE]: its batch times as profiled beforehand, see `simulator.step_time`
    totals: np.ndarray
    clock: float  # s
    mem: Memory


class World(NamedTuple):
    """G engines and their requests. Shapes: [G, ...] by engine, [n] by request; `cap` = most requests at one engine."""

    req: Requests
    hidden: Hidden
    tasks: np.ndarray  # f8[tasks, TASK_FIELDS]
    classes: np.ndarray  # f8[classes, CLASS_ONWARD + classes]
    waiting: np.ndarray  # i8[G, cap]
    running: np.ndarray
    arrived: np.ndarray
    finished: np.ndarray
    departed: np.ndarray  # i8[G, cap]: see N_DEPARTED
    batch_requests: np.ndarray  # i8[G, 3, cap]: the batches under construction, running, and before
    batch_tokens: np.ndarray
    batch_kinds: np.ndarray  # CHUNK, PROMPT_END or DECODE
    batch_contexts: np.ndarray  # tokens computed before, kept where entries are recorded
    batch_counts: np.ndarray  # i8[G, 3, BATCH_COUNTS]
    events: np.ndarray  # i8[G, cap]: heap of arrivals to come, by `hidden.ready`
    kv: np.ndarray  # i8[G, KV_SIZES]
    cache_slots: np.ndarray  # i8[G, power of 2]
    cache_entries: np.ndarray  # i8[G, 1 + most blocks, ENTRY_FIELDS]
    totals: np.ndarray  # i8[G, TOTALS]
    count: np.ndarray  # i8[G, COUNTS]
    time: np.ndarray  # f8[G, TIMES]
    law: np.ndarray  # f8[G, LAW_SIZE]
    batch_row: np.ndarray  # f8[G, 3, BATCH_COLUMNS]: the records of batches under way
    params: np.ndarray  # f8[G, p]
    request_memory: np.ndarray  # f8[n, k]
    client_memory: np.ndarray  # f8[G, clients, k]
    engine_memory: np.ndarray  # f8[G, k]
    heap: np.ndarray  # i8[G, h]
    rng: np.ndarray  # u8[G, 2]
    record_batches: np.ndarray  # f8[rows, BATCH_COLUMNS]
    record_entries: np.ndarray  # i8[rows, ENTRY_COLUMNS]
    record_gaps: np.ndarray  # f8[rows, GAP_COLUMNS]
    record_use: np.ndarray  # i8[RECORD_USES]


def new_requests(n: int) -> tuple[Requests, Hidden]:
    """Blank columns for `n` requests."""
    floats = {"arrival", "known_output", "first_token", "last_token_time", "ttft_slo", "tpot_slo", "path_left"}
    visible = Requests(**{f: np.zeros(n, np.float64 if f in floats else np.int64) for f in Requests._fields})
    integers = {"output_tokens", "leave_after", "engine", "recomputed", "prefix_hit", "status"}
    hidden = Hidden(**{f: np.zeros(n, np.int64 if f in integers else np.float64) for f in Hidden._fields})
    return visible, hidden


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
        request_columns: memory it keeps by request,
        client_columns: by client,
        clients: of whom there are so many,
        engine_columns: and by engine.
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
    record_use = ints(RECORD_USES)
    record_use[RECORD_LEVEL] = level
    return World(
        req=visible,
        hidden=hidden,
        tasks=floats(tasks, TASK_FIELDS),
        classes=floats(classes, CLASS_ONWARD + classes),
        waiting=ints(engines, capacity),
        running=ints(engines, capacity),
        arrived=ints(engines, capacity),
        finished=ints(engines, capacity),
        departed=ints(engines, capacity if requests is not None else 0),
        batch_requests=ints(engines, 3, capacity),
        batch_tokens=ints(engines, 3, capacity),
        batch_kinds=ints(engines, 3, capacity),
        batch_contexts=ints(engines, 3, capacity if level >= 3 else 0),
        batch_counts=ints(engines, 3, BATCH_COUNTS),
        events=ints(engines, capacity),
        kv=ints(engines, KV_SIZES),
        cache_slots=ints(engines, 2 ** (2 * cached_blocks).bit_length()),
        cache_entries=ints(engines, 1 + cached_blocks, ENTRY_FIELDS),
        totals=ints(engines, TOTALS),
        count=ints(engines, COUNTS),
        time=floats(engines, TIMES),
        law=floats(engines, LAW_SIZE),
        batch_row=floats(engines, 3, BATCH_COLUMNS),
        params=floats(engines, num_params),
        request_memory=floats(rows, request_columns),
        client_memory=floats(engines, clients, client_columns),
        engine_memory=floats(engines, engine_columns),
        heap=ints(engines, capacity if heap else 0),
        rng=np.zeros((engines, 2), np.uint64),
        record_batches=floats(4096 if level >= 2 else 0, BATCH_COLUMNS),
        record_entries=ints(65536 if level >= 3 else 0, ENTRY_COLUMNS),
        record_gaps=floats(8192 if level >= 1 else 0, GAP_COLUMNS),
        record_use=record_use,
    )


@compiled(inline=True)
def prefixes_of(world, g):
    """The `Prefixes` of engine `g`."""
    return Prefixes(
        world.cache_slots[g], world.cache_entries[g], world.kv[g], world.req.parent, world.req.shared_tokens
    )


@compiled(inline=True)
def view_of(world, g):
    """The `View` of engine `g`; its arrays are the world's own memory."""
    count = world.count[g]
    head = count[WAITING_HEAD]
    build, last = count[BUILD], count[LAST]
    return View(
        world.req,
        world.waiting[g][head : head + count[N_WAITING]],
        world.running[g][: count[N_RUNNING]],
        world.arrived[g][: count[N_ARRIVED]],
        world.finished[g][: count[N_FINISHED]],
        LastBatch(
            world.batch_requests[g, last][: count[N_LAST]],
            world.batch_tokens[g, last][: count[N_LAST]],
            world.time[g, LAST_DURATION],
        ),
        Batch(world.batch_requests[g, build], world.batch_tokens[g, build], world.batch_counts[g, build]),
        world.kv[g],
        prefixes_of(world, g),
        world.tasks,
        world.classes,
        g,
        world.law[g],
        world.totals[g],
        world.time[g, CLOCK],
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
