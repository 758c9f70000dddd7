"""The life of a batch: opened, decided, started on the GPU, finished."""

import numpy as np

from llmsched_env.simulator.batch_time import DECIDE_REQUEST
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.prefix_cache import publish
from llmsched_env.simulator.queues import (
    close_gaps_in_queue,
    close_gaps_in_running,
    join_queue,
    leave_queue,
    rejoin_queue,
    release,
    work_tokens,
)
from llmsched_env.simulator.recording import describe_decision, describe_start, record_batch, record_gap
from llmsched_env.simulator.state import (
    ACTIVE,
    ADMIT_LIMIT,
    ADMITTED,
    AHEAD,
    BACKLOG,
    BATCH_COUNTS,
    BATCH_END,
    BATCH_START,
    BOUNDARY_PHASE,
    BUILD,
    BUSY_PHASE,
    CHUNK,
    CLOCK,
    DECODE,
    EVICTED,
    FINISHED,
    GAVE_UP,
    GOOD,
    KV_BLOCK_SIZE,
    KV_CACHING,
    KV_SWAP_FREE,
    LAST,
    LAST_DURATION,
    LAST_TOKEN,
    LATEST_PREFILL,
    LATEST_TOKENS,
    LOST_HITS,
    LOST_SEATS,
    LOST_SWAPS,
    LOST_TOKENS,
    MAX_SEQS,
    MAX_TOKENS,
    N_LAST,
    N_RUNNING,
    N_WAITING,
    NETWORKED,
    NUM_SEQS,
    PARAM_ACTIVE,
    PARAM_SEQS,
    PARAM_TOKENS,
    PENDING,
    PHASE,
    PREEMPTED,
    PREEMPTIONS,
    PREFILL_TOKENS,
    PREFIX_HITS,
    PROMPT_END,
    RECORD_LEVEL,
    RUN,
    RUNNING,
    SEPARATE,
    SEQ_LIMIT,
    SWAPPED,
    TASK_SERVED,
    TOKEN_LIMIT,
    TOKENS,
    TOTAL_FINISHED,
    TOTAL_GENERATED,
    TOTAL_PREEMPTIONS,
    TOTAL_PREFIX_HITS,
    TOTAL_RECOMPUTED,
    TOTAL_SWAPPED,
    UNLIMITED,
    WAITING,
    prefixes_of,
)
from llmsched_env.simulator.step_time import seconds_of


@compiled(inline=True)
def open_batch(world, g):
    """Empty the batch under construction and set its limits: the engine's, or the scheduler's where they are lower."""
    count = world.count[g]
    counts = world.batch_counts[g, count[BUILD]]
    for k in range(BATCH_COUNTS):
        counts[k] = 0
    counts[TOKEN_LIMIT] = _limit(world, g, count[MAX_TOKENS], count[PARAM_TOKENS])
    counts[SEQ_LIMIT] = _limit(world, g, count[MAX_SEQS], count[PARAM_SEQS])
    active = _limit(world, g, UNLIMITED, count[PARAM_ACTIVE])
    counts[ADMIT_LIMIT] = max(0, active - count[N_RUNNING])


@compiled(inline=True)
def _limit(world, g, engine_limit, place):
    if place < 0 or world.params[g, place] >= engine_limit:
        return engine_limit
    return np.int64(world.params[g, place])


@compiled(inline=True)
def commit(world, g):
    """Carry out what the scheduler decided: admissions, preemptions and rejections change the queues.

    The tokens of the batch count as computed from here on, as they do in vLLM: whatever is decided next comes after.
    """
    count = world.count[g]
    counts = world.batch_counts[g, count[BUILD]]
    before = count[N_RUNNING]
    _commit_entries(world, g)
    if counts[PREFIX_HITS] > 0:
        count[BACKLOG] -= counts[PREFIX_HITS]
        count[LOST_HITS] += counts[PREFIX_HITS]
        world.totals[g, TOTAL_PREFIX_HITS] += counts[PREFIX_HITS]
    world.totals[g, TOTAL_SWAPPED] += counts[SWAPPED]
    count[LOST_SWAPS] += counts[SWAPPED]
    close_gaps_in_queue(world, g, counts)
    if counts[PREEMPTIONS] > 0:
        _commit_preemptions(world, g, counts, before)
    if counts[NUM_SEQS] > 0:
        counts[SWAPPED] = count[LOST_SWAPS]  # those of decisions that led to no batch included
        if world.record_use[RECORD_LEVEL] >= 2:
            describe_decision(world, g, count[BUILD])
        count[LOST_TOKENS] = 0
        count[LOST_SEATS] = 0
        count[LOST_HITS] = 0
        count[LOST_SWAPS] = 0
        count[PENDING] = 1
        count[BUILD] = (count[BUILD] + 1) % 3


@compiled(inline=True)
def _commit_entries(world, g):
    """Count the tokens of the batch as computed. What not every run needs stands in loops of its own: this is hot."""
    req, count = world.req, world.count[g]
    build = count[BUILD]
    requests, tokens, kinds = (
        world.batch_requests[g, build],
        world.batch_tokens[g, build],
        world.batch_kinds[g, build],
    )
    n, hits = world.batch_counts[g, build, NUM_SEQS], world.batch_counts[g, build, PREFIX_HITS]
    if world.record_use[RECORD_LEVEL] >= 3:
        for k in range(n):
            world.batch_contexts[g, build, k] = req.computed[requests[k]]
    if world.kv[g, KV_CACHING] == 1:
        prefixes, size = prefixes_of(world, g), world.kv[g, KV_BLOCK_SIZE]
        for k in range(n):
            i = requests[k]
            filled = req.computed[i] + req.scheduled[i]
            if filled >= (req.published[i] + 1) * size:
                publish(prefixes, i, req.published[i], filled // size)
                req.published[i] = filled // size
    for k in range(n):
        i = requests[k]
        if i < 0:  # never; tells the compiler that indices need no wrap-around
            continue
        scheduled, computed, known = req.scheduled[i], req.computed[i], req.prefill_tokens[i]
        tokens[k] = scheduled
        req.scheduled[i] = 0
        req.computed[i] = computed + scheduled
        kinds[k] = DECODE
        if computed < known:
            kinds[k] = PROMPT_END if computed + scheduled == known and count[SEPARATE] == 0 else CHUNK
            if req.phase[i] == WAITING:
                _enter(world.kv[g], count, world.running[g], req.phase, req.swapped, i)
                world.hidden.prefix_hit[i] += computed if hits > 0 else 0
    if world.batch_counts[g, build, SWAPPED] > 0:
        for k in range(n):
            if req.phase[requests[k]] == WAITING:  # back from the host to decode
                _enter(world.kv[g], count, world.running[g], req.phase, req.swapped, requests[k])
    if count[AHEAD] == 1:
        for k in range(n):
            i = requests[k]
            if kinds[k] != CHUNK:
                req.in_flight[i] += 1
                if req.generated[i] + req.in_flight[i] >= world.hidden.leave_after[i]:
                    req.phase[i] = LAST_TOKEN


@compiled
def _enter(kv, count, running, phase, swapped, i):
    """Request `i` joins the running ones; its blocks on the host are free."""
    phase[i] = RUNNING
    running[count[N_RUNNING]] = i
    count[N_RUNNING] += 1
    kv[KV_SWAP_FREE] += swapped[i]
    swapped[i] = 0


@compiled
def _commit_preemptions(world, g, counts, before):
    req, count, running = world.req, world.count[g], world.running[g]
    count[LOST_SEATS] += counts[PREEMPTIONS]
    world.totals[g, TOTAL_PREEMPTIONS] += counts[PREEMPTIONS]
    for k in range(before):
        if req.phase[running[k]] == EVICTED:
            _back_to_waiting(world, g, running[k])
            join_queue(count, world.waiting[g], running[k])
    for k in range(before - 1, -1, -1):  # so that several keep their order at the front of the queue
        if req.phase[running[k]] == PREEMPTED:
            _back_to_waiting(world, g, running[k])
            rejoin_queue(count, world.waiting[g], running[k])
    close_gaps_in_running(count, world.running[g], req.phase)


@compiled(inline=True)
def _back_to_waiting(world, g, i):
    """Preempted request `i` has to compute its tokens again, unless they went to the host."""
    req, count = world.req, world.count[g]
    req.phase[i] = WAITING
    req.in_flight[i] = 0  # a token under way still comes, and is then counted where it waits
    if req.swapped[i] > 0:
        return
    world.hidden.recomputed[i] += req.computed[i]
    world.totals[g, TOTAL_RECOMPUTED] += req.computed[i]
    count[BACKLOG] += req.computed[i]
    count[LOST_TOKENS] += req.computed[i]
    req.computed[i] = 0
    req.prefill_tokens[i] = req.prompt_tokens[i] + req.generated[i]


@compiled(inline=True)
def start_batch(world, g):
    """The batch that was decided goes to the GPU."""
    count, time = world.count[g], world.time[g]
    run = (count[BUILD] + 2) % 3
    count[RUN] = run
    counts = world.batch_counts[g, run]
    time[BATCH_START] = time[CLOCK]
    deciding = world.law[g, DECIDE_REQUEST] * (count[N_WAITING] + count[N_RUNNING])
    time[BATCH_END] = time[CLOCK] + (seconds_of(world.law[g], counts) + deciding)
    count[PENDING] = 0
    count[PHASE] = BUSY_PHASE
    world.totals[g, LATEST_TOKENS] = counts[TOKENS]
    world.totals[g, LATEST_PREFILL] = counts[PREFILL_TOKENS]
    if counts[ADMITTED] > 0:
        for k in range(counts[NUM_SEQS]):
            i = world.batch_requests[g, run, k]
            if np.isnan(world.hidden.first_scheduled[i]):
                world.hidden.first_scheduled[i] = time[CLOCK]
    if world.record_use[RECORD_LEVEL] >= 2:
        describe_start(world, g, run)


@compiled(inline=True)
def finish_batch(world, g):
    """Apply the batch that ends now: tokens exist, first tokens and departures happen (arXiv 2504.07347, section 3)."""
    req, hidden, count, time = world.req, world.hidden, world.count[g], world.time[g]
    run = count[RUN]
    requests, kinds = world.batch_requests[g, run], world.batch_kinds[g, run]
    end = time[CLOCK]
    recording, tokens = world.record_use[RECORD_LEVEL] > 0, 0
    if world.record_use[RECORD_LEVEL] >= 2:
        record_batch(world, g, run)
    n = world.batch_counts[g, run, NUM_SEQS]
    if count[GAVE_UP] == 1:
        for k in range(n):
            if hidden.status[requests[k]] != ACTIVE:
                kinds[k] = CHUNK  # nobody waits for its token
    if count[AHEAD] == 1:
        for k in range(n):
            _token_arrives(req, requests[k], kinds[k])
    ran, waited = False, False
    for k in range(n):
        i = requests[k]
        if i < 0 or kinds[k] == CHUNK:
            continue
        req.generated[i] += 1
        if req.generated[i] == 1:
            req.first_token[i] = end
        elif recording:
            record_gap(world, g, end, end - req.last_token_time[i])
        req.last_token_time[i] = end
        if req.generated[i] == hidden.leave_after[i]:
            if req.phase[i] == WAITING:  # preempted with its last token under way: nothing is computed again
                waited = True
                count[BACKLOG] -= work_tokens(world, g, i) - req.computed[i]
            else:
                ran = True
            _depart(world, g, i)
        tokens += 1
    world.totals[g, TOTAL_GENERATED] += tokens
    count[BACKLOG] -= world.batch_counts[g, run, TOKENS]
    if count[NETWORKED] == 1:
        for k in range(n):
            world.tasks[req.task[requests[k]], TASK_SERVED] += world.batch_tokens[g, run, k]
    if ran:
        close_gaps_in_running(count, world.running[g], req.phase)
    if waited:
        leave_queue(count, world.waiting[g], req.phase)
    time[LAST_DURATION] = time[BATCH_END] - time[BATCH_START]
    count[N_LAST] = world.batch_counts[g, run, NUM_SEQS]
    count[LAST] = run
    count[PHASE] = BOUNDARY_PHASE


@compiled
def _token_arrives(req, i, kind):
    """A token that was in flight is there; a request preempted meanwhile will compute it with the others."""
    if kind == CHUNK:
        return
    if req.phase[i] != WAITING:
        req.in_flight[i] -= 1
    elif req.swapped[i] == 0:
        req.prefill_tokens[i] = req.prompt_tokens[i] + req.generated[i] + 1


@compiled(inline=True)
def _depart(world, g, i):
    req, end = world.req, world.time[g, CLOCK]
    if req.generated[i] < world.hidden.output_tokens[i]:  # it goes on at another engine
        world.count[g, BACKLOG] -= work_tokens(world, g, i) - req.computed[i]
        release(world, g, i, ACTIVE)
        return
    world.hidden.finish[i] = end
    release(world, g, i, FINISHED)
    world.totals[g, TOTAL_FINISHED] += 1
    per_token = (end - req.first_token[i]) / max(1, req.generated[i] - 1)
    if req.first_token[i] - req.arrival[i] <= req.ttft_slo[i] and per_token <= req.tpot_slo[i]:
        world.time[g, GOOD] += 1.0
