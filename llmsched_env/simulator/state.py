"""What the state of the simulator consists of: the columns of requests, and records of counters, clocks and blocks.

`simulator.world` puts them together: `world.engines[g].clock`, `view.kv.free`, `view.req.prompt_tokens[i]`.
"""

from typing import NamedTuple

import numpy as np

from llmsched_env.fields import field_names, record_dtype
from llmsched_env.results.records import BATCH_DTYPE

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

# Phase of an engine.
BOUNDARY_PHASE, BUSY_PHASE = range(2)

# What an entry of a batch is (`World.batch_kinds`). All but the first yield an output token.
CHUNK, PROMPT_END, DECODE = range(3)

RECORD_LEVELS = {"off": 0, "requests": 1, "batches": 2, "entries": 3}

BATCH_COUNTS = record_dtype(  # `View.batch.counts`: the batch under construction
    ("num_seqs", "i8"),  # requests in it
    ("tokens", "i8"),
    ("prefill_tokens", "i8"),
    ("decode_tokens", "i8"),  # also the number of requests that decode in it
    ("token_limit", "i8"),  # most tokens allowed in it
    ("seq_limit", "i8"),  # most requests allowed in it
    ("admitted", "i8"),  # requests in it that were waiting until now
    ("admit_limit", "i8"),  # most requests that may be admitted in it
    ("preemptions", "i8"),  # requests preempted while composing it
    ("rejections", "i8"),  # requests rejected while composing it
    ("decode_kv_tokens", "i8"),  # context tokens its decodes read
    ("prefill_attn_pairs", "i8"),  # query-key pairs of its prefill chunks
    ("prefill_context_tokens", "i8"),  # context tokens before its prefill chunks
    ("prefix_hits", "i8"),  # tokens that requests it admits found in the prefix cache
    ("swapped", "i8"),  # KV blocks it moves between GPU and host
)

KV_COUNTS = record_dtype(  # `View.kv`: blocks of the KV cache
    ("free", "i8"),  # held by no request, those that keep a reusable prefix included
    ("total", "i8"),
    ("block_size", "i8"),  # tokens
    ("cached", "i8"),  # free ones that keep a reusable prefix
    ("prefix_caching", "i8"),  # 1: prefixes are kept and reused
    ("swap_free", "i8"),  # free blocks on the host; 0 without swapping
)

CACHE_ENTRY = (
    record_dtype(  # `View.prefixes.entries`: a block of the prefix cache; row 0 is the sentinel of the LRU list
        ("owner", "i8"),  # the request that its tokens are first found in; in row 0: the first unused entry
        ("place", "i8"),  # which block of that request
        ("holders", "i8"),  # requests that hold it
        ("older", "i8"),  # neighbours among the idle ones, in order of last use; the newest in row 0
        ("newer", "i8"),  # also links unused entries; the oldest in row 0
    )
)

TASK = record_dtype(  # `View.tasks`: a task, which is a graph of calls
    ("arrival", "f8"),  # s
    ("served", "f8"),  # tokens computed for its calls so far
    ("longest_path", "f8"),  # tokens of the calls on its longest path that has finished
    ("cost", "f8"),  # known KV token-time of all its calls: sum of s o + o^2/2
    (
        "virtual_finish",
        "f8",
    ),  # virtual time at which it would finish if all tasks shared the memory; inf before it arrives
    ("calls_left", "f8"),  # calls that have not finished
)

CALL_CLASS = record_dtype(  # `View.classes`: a class of calls, over all engines of a network
    ("present", "f8"),  # calls at an engine now
    ("mean_work", "f8"),  # mean tokens of a call
)

TOTALS = record_dtype(  # `View.totals`: running totals that an engine can count itself, and the batch that started last
    ("arrived", "i8"),
    ("prompt_tokens", "i8"),
    ("finished", "i8"),
    ("generated", "i8"),
    ("preemptions", "i8"),
    ("recomputed", "i8"),  # tokens lost to preemption
    ("prefix_hits", "i8"),  # tokens found in the prefix cache
    ("swapped", "i8"),  # blocks moved between GPU and host
    ("latest_tokens", "i8"),
    ("latest_prefill_tokens", "i8"),
)

ENGINE = record_dtype(  # `World.engines`: the counters and clocks of an engine
    ("phase", "i8"),  # BOUNDARY_PHASE or BUSY_PHASE
    ("waiting_head", "i8"),  # the waiting queue is waiting[waiting_head : waiting_head + num_waiting]
    ("num_waiting", "i8"),
    ("num_running", "i8"),
    ("num_arrived", "i8"),  # since the scheduler was last asked
    ("num_finished", "i8"),  # since then
    ("num_events", "i8"),  # arrivals and timeouts to come
    ("num_departed", "i8"),  # requests that have left this engine and that the network has not handled yet
    ("num_in_system", "i8"),  # requests waiting or running
    ("backlog", "i8"),  # tokens of work left in them
    # Since the last batch was decided:
    ("recomputed", "i8"),  # tokens lost to preemption
    ("preemptions", "i8"),
    ("prefix_hits", "i8"),  # tokens found in the prefix cache
    ("swapped", "i8"),  # blocks moved between GPU and host
    # Which of three buffers holds the batch:
    ("building", "i8"),  # under construction,
    ("executing", "i8"),  # that runs,
    ("ended", "i8"),  # that ended last
    ("num_ended", "i8"),  # requests in the batch that ended last
    ("num_too_long", "i8"),  # requests turned away as they exceed max_model_len
    ("most_decodes", "i8"),  # tokens of the longest batch so far that only decoded,
    ("most_tokens", "i8"),  # and of the longest that held prefill
    ("pending", "i8"),  # 1: the batch after the running one has been decided
    ("asked", "i8"),  # 1: the scheduler has been asked for it, and has composed none
    ("stops_to_decide", "i8"),  # 1: stop for a decision before every batch
    ("decided", "i8"),  # 1: the decision for this batch has been taken
    ("selecting", "i8"),  # 1: the scheduler has asked for a choice and goes on with the batch under construction
    ("has_abandoned", "i8"),  # 1: a client has timed out, so batches may hold requests that have left
    ("idle_asks", "i8"),  # how often it was asked in a row and composed nothing, with requests present
    ("inclusive", "i8"),  # 1: batches may start at the very time that `advance` runs to
    # What does not change during a run:
    ("scheduler", "i8"),  # which scheduler of the tuple composes the batches
    ("token_budget", "i8"),  # the engine's limits
    ("max_num_seqs", "i8"),
    ("max_model_len", "i8"),
    ("token_budget_param", "i8"),  # where the scheduler's own limits stand among its parameters; -1: it has none
    ("max_num_seqs_param", "i8"),
    ("max_num_active_seqs_param", "i8"),
    ("separate", "i8"),  # 1: first_token="separate"
    ("schedule_ahead", "i8"),  # 1: a batch is decided while the one before it runs
    ("networked", "i8"),  # 1: one of a network of engines over shared requests
    ("hands_over", "i8"),  # 1: every request goes on at another engine, which yields its first token
    ("step_noise", "f8"),  # standard deviation of the logarithm of step times
    # Times, s:
    ("clock", "f8"),
    ("batch_start", "f8"),
    ("batch_end", "f8"),
    ("ended_duration", "f8"),  # of the batch that ended last
    ("stalled_since", "f8"),  # nan while batches run
    ("idle_since", "f8"),  # when the first of `idle_asks` was
    ("next_event", "f8"),  # when its next event is due; inf: never
    ("request_seconds", "f8"),  # integral of the number in system
    ("good_requests", "f8"),  # requests finished within their SLO
)

RECORDING = record_dtype(  # `World.recording`: the level of recording, rows written, and progress
    ("level", "i8"),
    ("num_batches", "i8"),
    ("num_entries", "i8"),
    ("num_gaps", "i8"),
    ("decisions", "i8"),  # how often schedulers have been asked
    ("pause_at", "i8"),  # decisions at which `advance` stops, so that the user may interrupt; 0: never
)
BATCH_RECORD = record_dtype(*((name, BATCH_DTYPE[name].str[1:]) for name in field_names(BATCH_DTYPE)))
ENTRY_RECORD = record_dtype(
    ("batch", "i8"), ("request", "i8"), ("tokens", "i8"), ("is_prefill", "i8"), ("context", "i8"), ("engine", "i8")
)
GAP_RECORD = record_dtype(("time", "f8"), ("gap", "f8"), ("count", "f8"), ("engine", "i8"))


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


def new_requests(n: int) -> tuple[Requests, Hidden]:
    """Blank columns for `n` requests, in one block of memory: see `block_of`."""
    seen = {"arrival", "known_output", "first_token", "last_token_time", "ttft_slo", "tpot_slo", "path_left"}
    floats = seen | {"ready", "timeout", "first_scheduled", "finish", "left"}
    names = (*Requests._fields, *Hidden._fields)
    block = np.zeros((len(names), n), np.int64)
    columns = [row.view(np.float64) if name in floats else row for name, row in zip(names, block, strict=True)]
    return Requests(*columns[: len(Requests._fields)]), Hidden(*columns[len(Requests._fields) :])


def block_of(req: Requests) -> np.ndarray:
    """i8[columns, requests]: the memory of the columns that `new_requests` has made, for copies in one go."""
    block = req[0].base
    assert block is not None, "its columns must be those of new_requests"
    return block
