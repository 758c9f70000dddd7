"""The life of a batch (opened, decided, started on the GPU, finished), and the lists that requests move between."""

import numpy as np

from llmsched_env.compiled import compiled
from llmsched_env.simulator.kv_cache import free_blocks, publish
from llmsched_env.simulator.recording import describe_decision, describe_start, record_batch, record_gap
from llmsched_env.simulator.state import (
    ABSENT,
    ACTIVE,
    BOUNDARY_PHASE,
    BUSY_PHASE,
    CHUNK,
    DECODE,
    EVICTED,
    FINISHED,
    LAST_TOKEN,
    PREEMPTED,
    PROMPT_END,
    REJECTED,
    RUNNING,
    STATUS_REJECTED,
    UNLIMITED,
    WAITING,
)
from llmsched_env.simulator.step_time import noise_factor, seconds_of
from llmsched_env.simulator.world import prefixes_of


@compiled(inline=True)
def open_batch(world, g):
    """Empty the batch under construction and set its limits: the engine's, or the scheduler's where they are lower."""
    engine = world.engines[g]
    counts = world.batch_counts[g, engine.building]
    counts.num_seqs = 0
    counts.tokens = 0
    counts.prefill_tokens = 0
    counts.decode_tokens = 0
    counts.admitted = 0
    counts.preemptions = 0
    counts.rejections = 0
    counts.decode_kv_tokens = 0
    counts.prefill_attn_pairs = 0
    counts.prefill_context_tokens = 0
    counts.prefix_hits = 0
    counts.swapped = 0
    counts.token_limit = _limit(world, g, engine.token_budget, engine.token_budget_param)
    counts.seq_limit = _limit(world, g, engine.max_num_seqs, engine.max_num_seqs_param)
    active = _limit(world, g, UNLIMITED, engine.max_num_active_seqs_param)
    counts.admit_limit = max(0, active - engine.num_running)


@compiled(inline=True)
def _limit(world, g, engine_limit, place):
    if place < 0 or world.params[g, place] >= engine_limit:
        return engine_limit
    return np.int64(world.params[g, place])


@compiled(inline=True)
def commit(world, g):
    """Carry out what the scheduler decided: admissions, preemptions and rejections change the queues.

    The tokens of the batch count as computed from here on, as in vLLM: whatever is decided next comes after.
    """
    engine = world.engines[g]
    counts = world.batch_counts[g, engine.building]
    before = engine.num_running
    _commit_entries(world, g)
    if counts.prefix_hits > 0:
        engine.backlog -= counts.prefix_hits
        engine.prefix_hits += counts.prefix_hits
        world.totals[g].prefix_hits += counts.prefix_hits
    world.totals[g].swapped += counts.swapped
    engine.swapped += counts.swapped
    close_gaps_in_queue(world, g, counts)
    if counts.preemptions > 0:
        _commit_preemptions(world, g, counts, before)
    if counts.num_seqs > 0:
        counts.swapped = engine.swapped  # those of decisions that led to no batch included
        if world.recording.level >= 2:
            describe_decision(world, g, engine.building)
        engine.recomputed = 0
        engine.preemptions = 0
        engine.prefix_hits = 0
        engine.swapped = 0
        engine.pending = 1
        engine.building = (engine.building + 1) % 3


@compiled(inline=True)
def _commit_entries(world, g):
    """Count the tokens of the batch as computed. What not every run needs stands in loops of its own: this is hot."""
    req, engine = world.req, world.engines[g]
    build = engine.building
    requests, tokens, kinds = (
        world.batch_requests[g, build],
        world.batch_tokens[g, build],
        world.batch_kinds[g, build],
    )
    n, hits = world.batch_counts[g, build].num_seqs, world.batch_counts[g, build].prefix_hits
    if world.recording.level >= 3:
        for k in range(n):
            world.batch_contexts[g, build, k] = req.computed[requests[k]]
    if world.kv[g].prefix_caching == 1:
        prefixes, size = prefixes_of(world, g), world.kv[g].block_size
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
            kinds[k] = PROMPT_END if computed + scheduled == known and engine.separate == 0 else CHUNK
            if req.phase[i] == WAITING:
                _enter(world.kv[g], engine, world.running[g], req.phase, req.swapped, i)
                world.hidden.prefix_hit[i] += computed if hits > 0 else 0
    if world.batch_counts[g, build].swapped > 0:
        for k in range(n):
            if req.phase[requests[k]] == WAITING:  # back from the host to decode
                _enter(world.kv[g], engine, world.running[g], req.phase, req.swapped, requests[k])
    if engine.schedule_ahead == 1:
        for k in range(n):
            i = requests[k]
            if kinds[k] != CHUNK:
                req.in_flight[i] += 1
                if req.generated[i] + req.in_flight[i] >= world.hidden.leave_after[i]:
                    req.phase[i] = LAST_TOKEN


@compiled
def _enter(kv, engine, running, phase, swapped, i):
    """Request `i` joins the running ones; its blocks on the host are free."""
    phase[i] = RUNNING
    running[engine.num_running] = i
    engine.num_running += 1
    kv.swap_free += swapped[i]
    swapped[i] = 0


@compiled
def _commit_preemptions(world, g, counts, before):
    req, engine, running = world.req, world.engines[g], world.running[g]
    engine.preemptions += counts.preemptions
    world.totals[g].preemptions += counts.preemptions
    for k in range(before):
        if req.phase[running[k]] == EVICTED:
            _back_to_waiting(world, g, running[k])
            join_queue(engine, world.waiting[g], running[k])
    for k in range(before - 1, -1, -1):  # so that several keep their order at the front of the queue
        if req.phase[running[k]] == PREEMPTED:
            _back_to_waiting(world, g, running[k])
            rejoin_queue(engine, world.waiting[g], running[k])
    close_gaps_in_running(engine, world.running[g], req.phase)


@compiled(inline=True)
def _back_to_waiting(world, g, i):
    """Preempted request `i` has to compute its tokens again, unless they went to the host."""
    req, engine = world.req, world.engines[g]
    req.phase[i] = WAITING
    req.in_flight[i] = 0  # a token under way still comes, and is then counted where it waits
    if req.swapped[i] > 0:
        return
    world.hidden.recomputed[i] += req.computed[i]
    world.totals[g].recomputed += req.computed[i]
    engine.backlog += req.computed[i]
    engine.recomputed += req.computed[i]
    req.computed[i] = 0
    req.prefill_tokens[i] = req.prompt_tokens[i] + req.generated[i]


@compiled(inline=True)
def start_batch(world, g):
    """The batch that was decided goes to the GPU."""
    engine = world.engines[g]
    run = (engine.building + 2) % 3
    engine.executing = run
    counts = world.batch_counts[g, run]
    engine.batch_start = engine.clock
    deciding = world.law[g].decide_request * (engine.num_waiting + engine.num_running)
    seconds = seconds_of(world.law[g], counts) + deciding
    if engine.step_noise > 0.0:
        seconds *= noise_factor(engine.step_noise, world.noise_rng[g])
    engine.batch_end = engine.clock + seconds
    engine.pending = 0
    engine.phase = BUSY_PHASE
    if counts.prefill_tokens > 0:
        engine.most_tokens = max(engine.most_tokens, counts.tokens)
    else:
        engine.most_decodes = max(engine.most_decodes, counts.tokens)
    world.totals[g].latest_tokens = counts.tokens
    world.totals[g].latest_prefill_tokens = counts.prefill_tokens
    if counts.admitted > 0:
        for k in range(counts.num_seqs):
            i = world.batch_requests[g, run, k]
            if np.isnan(world.hidden.first_scheduled[i]):
                world.hidden.first_scheduled[i] = engine.clock
    if world.recording.level >= 2:
        describe_start(world, g, run)


@compiled(inline=True)
def finish_batch(world, g):
    """Apply the batch that ends now: tokens exist, first tokens and departures happen (arXiv 2504.07347, section 3)."""
    req, hidden, engine = world.req, world.hidden, world.engines[g]
    run = engine.executing
    requests, kinds = world.batch_requests[g, run], world.batch_kinds[g, run]
    end = engine.clock
    recording, tokens = world.recording.level > 0, 0
    if world.recording.level >= 2:
        record_batch(world, g, run)
    n = world.batch_counts[g, run].num_seqs
    if engine.has_abandoned == 1:
        for k in range(n):
            if hidden.status[requests[k]] != ACTIVE:
                kinds[k] = CHUNK  # nobody waits for its token
    if engine.schedule_ahead == 1:
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
                engine.backlog -= work_tokens(world, g, i) - req.computed[i]
            else:
                ran = True
            _depart(world, g, i)
        tokens += 1
    world.totals[g].generated += tokens
    engine.backlog -= world.batch_counts[g, run].tokens
    if engine.networked == 1:
        for k in range(n):
            world.tasks[req.task[requests[k]]].served += world.batch_tokens[g, run, k]
    if ran:
        close_gaps_in_running(engine, world.running[g], req.phase)
    if waited:
        leave_queue(engine, world.waiting[g], req.phase)
    engine.ended_duration = engine.batch_end - engine.batch_start
    engine.num_ended = world.batch_counts[g, run].num_seqs
    engine.ended = run
    engine.phase = BOUNDARY_PHASE


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
    req, end = world.req, world.engines[g].clock
    if req.generated[i] < world.hidden.output_tokens[i] or world.engines[g].hands_over == 1:  # it goes on elsewhere
        world.engines[g].backlog -= work_tokens(world, g, i) - req.computed[i]
        release(world, g, i, ACTIVE)
        return
    world.hidden.finish[i] = end
    release(world, g, i, FINISHED)
    world.totals[g].finished += 1
    per_token = (end - req.first_token[i]) / max(1, req.generated[i] - 1)
    if req.first_token[i] - req.arrival[i] <= req.ttft_slo[i] and per_token <= req.tpot_slo[i]:
        world.engines[g].good_requests += 1.0


@compiled(inline=True)
def work_tokens(world, g, i):
    """Tokens that request `i` has to be given in all: s + o - 1 with_prefill, s + o separate."""
    return world.req.prompt_tokens[i] + world.hidden.output_tokens[i] - 1 + world.engines[g].separate


@compiled(inline=True)
def release(world, g, i, status):
    """Request `i` leaves engine `g` and holds nothing any more; the caller takes it from its list.

    With status ACTIVE it goes on at another engine.
    """
    world.req.phase[i] = ABSENT
    world.kv[g].swap_free += world.req.swapped[i]
    world.req.swapped[i] = 0
    free_blocks(world.req, prefixes_of(world, g), i)
    world.hidden.status[i] = status
    if status != ACTIVE:
        world.hidden.left[i] = world.engines[g].clock
    if world.engines[g].networked == 1:
        world.departed[g, world.engines[g].num_departed] = i
        world.engines[g].num_departed += 1
    world.finished[g, world.engines[g].num_finished] = i
    world.engines[g].num_finished += 1
    world.engines[g].num_in_system -= 1


@compiled
def leave_queue(engine, queue, phase):
    """Drop absent requests from the waiting queue."""
    kept = engine.waiting_head
    for k in range(engine.waiting_head, engine.waiting_head + engine.num_waiting):
        if phase[queue[k]] != ABSENT:
            queue[kept] = queue[k]
            kept += 1
    engine.num_waiting = kept - engine.waiting_head


@compiled
def join_queue(engine, queue, i):
    """Append request `i` to the waiting queue."""
    if engine.waiting_head + engine.num_waiting == len(queue):
        _move_queue(engine, queue, 0)
    queue[engine.waiting_head + engine.num_waiting] = i
    engine.num_waiting += 1


@compiled
def rejoin_queue(engine, queue, i):
    """Put request `i` at the front of the waiting queue."""
    if engine.waiting_head == 0:
        _move_queue(engine, queue, len(queue) - engine.num_waiting)
    engine.waiting_head -= 1
    queue[engine.waiting_head] = i
    engine.num_waiting += 1


@compiled
def _move_queue(engine, queue, head):
    old, n = engine.waiting_head, engine.num_waiting
    if head < old:
        for k in range(n):
            queue[head + k] = queue[old + k]
    else:
        for k in range(n - 1, -1, -1):
            queue[head + k] = queue[old + k]
    engine.waiting_head = head


@compiled(inline=True)
def _runs(phase):
    return phase in (RUNNING, LAST_TOKEN)


@compiled(inline=True)
def close_gaps_in_queue(world, g, counts):
    """Drop from the waiting queue what a decision admitted or rejected; usually that is the head of it."""
    req, engine, queue = world.req, world.engines[g], world.waiting[g]
    gaps = counts.admitted + counts.rejections
    while gaps > 0 and _runs(req.phase[queue[engine.waiting_head]]):
        engine.waiting_head += 1
        engine.num_waiting -= 1
        gaps -= 1
    if gaps == 0:
        return
    end = engine.waiting_head + engine.num_waiting
    kept = engine.waiting_head
    for k in range(engine.waiting_head, end):
        i = queue[k]
        if req.phase[i] == WAITING:
            queue[kept] = i
            kept += 1
        elif req.phase[i] == REJECTED:
            engine.backlog -= work_tokens(world, g, i) - req.computed[i]
            release(world, g, i, STATUS_REJECTED)
    engine.num_waiting = kept - engine.waiting_head


@compiled
def close_gaps_in_running(engine, running, phase):
    """Drop from the running list what runs no more."""
    kept = 0
    for k in range(engine.num_running):
        if _runs(phase[running[k]]):
            running[kept] = running[k]
            kept += 1
    engine.num_running = kept
