"""The one loop that runs an engine: simulations, environments and everything larger call `advance`."""

import numpy as np

from llmsched_env.simulator.batch_time import HOST_BATCH, HOST_REQUEST, batch_seconds
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.events import clock_to, next_event, rejoin_queue, work_tokens
from llmsched_env.simulator.state import (
    ABSENT,
    ADMIT_LIMIT,
    ADMITTED,
    BACKLOG,
    BATCH_COLUMNS,
    BATCH_COUNTS,
    BATCH_END,
    BATCH_START,
    BOUNDARY_PHASE,
    BUSY_PHASE,
    CLOCK,
    DECIDE,
    DECIDED,
    DECODE_KV,
    DECODE_TOKENS,
    FINISHED,
    GOOD,
    IN_SYSTEM,
    KV_FREE,
    KV_TOTAL,
    LAST_DURATION,
    LOST_SEATS,
    LOST_TOKENS,
    MAX_SEQS,
    MAX_TOKENS,
    N_ARRIVED,
    N_FINISHED,
    N_LAST,
    N_RUNNING,
    N_WAITING,
    NUM_SEQS,
    PARAM_ACTIVE,
    PARAM_SEQS,
    PARAM_TOKENS,
    PARITY,
    PHASE,
    PREEMPTED,
    PREEMPTIONS,
    PREFILL_CONTEXT,
    PREFILL_PAIRS,
    PREFILL_TOKENS,
    RECORD_LEVEL,
    REJECTED,
    REJECTIONS,
    RUNNING,
    SEPARATE,
    SEQ_LIMIT,
    SLOT,
    STALLED_SINCE,
    STATUS_REJECTED,
    TOKEN_LIMIT,
    TOKENS,
    TOTAL_FINISHED,
    TOTAL_GENERATED,
    UNLIMITED,
    USED_BATCHES,
    USED_ENTRIES,
    USED_GAPS,
    WAITING,
    WAITING_HEAD,
    view_of,
)

# Why `advance` returned.
BOUNDARY = 0  # a decision is due before the next batch
HORIZON = 1  # the clock is at `until`
DRAINED = 2  # nothing is present and nothing will arrive
STALLED = 3  # requests are present, but the scheduler does nothing and no event will change that
RECORD_FULL = 4  # the record arrays must grow before the next batch
BAD_WAKE = 5  # the scheduler asked to be woken at a time that is not in the future


@compiled
def advance(world, schedulers, g, until):
    """Run engine `g` until `until` (s) or until something is due; returns why it stopped.

    A batch that ends by `until` is applied, an arrival by `until` is let in, and no batch starts at or after `until`.
    Calling again goes on where it stopped. Batches are not preempted: arrivals wait for the batch boundary
    (arXiv 2504.07347, section 3), and an arrival at a batch's start time is in it.
    """
    count, time = world.count[g], world.time[g]
    while True:
        if count[PHASE] == BUSY_PHASE:
            if time[BATCH_END] > until:
                clock_to(world, g, until)
                return HORIZON
            clock_to(world, g, time[BATCH_END])
            _finish_batch(world, g)
        else:
            clock_to(world, g, time[CLOCK])
        if count[IN_SYSTEM] == 0:
            time[STALLED_SINCE] = np.nan
            arrival = next_event(world, g)
            if arrival == np.inf:
                return DRAINED
            if arrival > until:
                clock_to(world, g, until)
                return HORIZON
            clock_to(world, g, arrival)
            continue
        if time[CLOCK] >= until:
            return HORIZON
        if count[DECIDE] == 1 and count[DECIDED] == 0:
            return BOUNDARY
        if not _room_in_records(world, g):
            return RECORD_FULL
        count[DECIDED] = 0
        _open_batch(world, g)
        wake = schedulers[count[SLOT]](view_of(world, g))
        count[N_ARRIVED] = 0
        count[N_FINISHED] = 0
        _commit(world, g)
        if world.batch_counts[g, NUM_SEQS] > 0:
            time[STALLED_SINCE] = np.nan
            _start_batch(world, g)
            continue
        if count[IN_SYSTEM] == 0:  # all rejected
            continue
        if not wake > time[CLOCK]:
            return BAD_WAKE
        if np.isnan(time[STALLED_SINCE]):
            time[STALLED_SINCE] = time[CLOCK]
        wake = min(wake, next_event(world, g))
        if wake > until:
            clock_to(world, g, until)
            return STALLED if wake == np.inf else HORIZON
        if wake == np.inf:
            return STALLED
        clock_to(world, g, wake)


@compiled
def _open_batch(world, g):
    """Empty the batch under construction and set its limits: the engine's, or the scheduler's where they are lower."""
    count, counts = world.count[g], world.batch_counts[g]
    for k in range(BATCH_COUNTS):
        counts[k] = 0
    counts[TOKEN_LIMIT] = _limit(world, g, count[MAX_TOKENS], count[PARAM_TOKENS])
    counts[SEQ_LIMIT] = _limit(world, g, count[MAX_SEQS], count[PARAM_SEQS])
    active = _limit(world, g, UNLIMITED, count[PARAM_ACTIVE])
    counts[ADMIT_LIMIT] = max(0, active - count[N_RUNNING])


@compiled
def _limit(world, g, engine_limit, place):
    if place < 0 or world.params[g, place] >= engine_limit:
        return engine_limit
    return np.int64(world.params[g, place])


@compiled
def _commit(world, g):
    """Carry out what the scheduler decided: admissions, preemptions and rejections change the queues."""
    req, count, counts, clock = world.req, world.count[g], world.batch_counts[g], world.time[g, CLOCK]
    requests, tokens = world.batch_requests[g, count[PARITY]], world.batch_tokens[g, count[PARITY]]
    running = world.running[g]
    before = count[N_RUNNING]
    for k in range(counts[NUM_SEQS]):
        i = requests[k]
        tokens[k] = req.scheduled[i]
        if req.phase[i] == WAITING:
            req.phase[i] = RUNNING
            running[count[N_RUNNING]] = i
            count[N_RUNNING] += 1
            if np.isnan(world.hidden.first_scheduled[i]):
                world.hidden.first_scheduled[i] = clock
    _close_gaps_in_queue(world, g)
    if counts[PREEMPTIONS] > 0:
        count[LOST_SEATS] += counts[PREEMPTIONS]
        for k in range(before - 1, -1, -1):  # so that several keep their order at the front of the queue
            i = running[k]
            if req.phase[i] == PREEMPTED:
                world.hidden.recomputed[i] += req.computed[i]
                count[BACKLOG] += req.computed[i]
                count[LOST_TOKENS] += req.computed[i]
                req.computed[i] = 0
                req.prefill_tokens[i] = req.prompt_tokens[i] + req.generated[i]
                req.phase[i] = WAITING
                rejoin_queue(world, g, i)
        _close_gaps_in_running(world, g)


@compiled
def _close_gaps_in_queue(world, g):
    """Drop from the waiting queue what no longer waits; usually that is the head of it."""
    req, count, counts, queue = world.req, world.count[g], world.batch_counts[g], world.waiting[g]
    gaps = counts[ADMITTED] + counts[REJECTIONS]
    while gaps > 0 and req.phase[queue[count[WAITING_HEAD]]] == RUNNING:
        count[WAITING_HEAD] += 1
        count[N_WAITING] -= 1
        gaps -= 1
    if gaps == 0:
        return
    end = count[WAITING_HEAD] + count[N_WAITING]
    kept = count[WAITING_HEAD]
    for k in range(count[WAITING_HEAD], end):
        i = queue[k]
        if req.phase[i] == WAITING:
            queue[kept] = i
            kept += 1
        elif req.phase[i] == REJECTED:
            req.phase[i] = ABSENT
            count[IN_SYSTEM] -= 1
            count[BACKLOG] -= work_tokens(world, g, i)
            world.hidden.status[i] = STATUS_REJECTED
            world.hidden.left[i] = world.time[g, CLOCK]
    count[N_WAITING] = kept - count[WAITING_HEAD]


@compiled
def _close_gaps_in_running(world, g):
    count, running = world.count[g], world.running[g]
    kept = 0
    for k in range(count[N_RUNNING]):
        if world.req.phase[running[k]] == RUNNING:
            running[kept] = running[k]
            kept += 1
    count[N_RUNNING] = kept


@compiled
def _start_batch(world, g):
    count, counts, time, law = world.count[g], world.batch_counts[g], world.time[g], world.law[g]
    seconds = batch_seconds(law, counts[TOKENS], counts[DECODE_KV], counts[PREFILL_PAIRS], counts[PREFILL_CONTEXT])
    time[BATCH_START] = time[CLOCK]
    time[BATCH_END] = time[CLOCK] + (seconds + law[HOST_BATCH] + law[HOST_REQUEST] * counts[NUM_SEQS])
    count[PHASE] = BUSY_PHASE
    if world.record_use[RECORD_LEVEL] >= 2:
        _describe_batch(world, g)
    count[LOST_TOKENS] = 0
    count[LOST_SEATS] = 0


@compiled
def _finish_batch(world, g):
    """Apply the batch that ends now: tokens exist, first tokens and departures happen (arXiv 2504.07347, section 3)."""
    req, hidden, count, time = world.req, world.hidden, world.count[g], world.time[g]
    requests, tokens = world.batch_requests[g, count[PARITY]], world.batch_tokens[g, count[PARITY]]
    end = time[CLOCK]
    recording = world.record_use[RECORD_LEVEL] > 0
    if world.record_use[RECORD_LEVEL] >= 2:
        _record_batch(world, g)
    departures = 0
    for k in range(world.batch_counts[g, NUM_SEQS]):
        i = requests[k]
        if i < 0:  # never; tells the compiler that indices need no wrap-around
            continue
        prefilling = req.computed[i] < req.prefill_tokens[i]
        req.computed[i] += tokens[k]
        req.scheduled[i] = 0
        if prefilling and (req.computed[i] < req.prefill_tokens[i] or count[SEPARATE] == 1):
            continue
        req.generated[i] += 1
        if req.generated[i] == 1:
            req.first_token[i] = end
        elif recording:
            _record_gap(world, g, end, end - req.last_token_time[i])
        req.last_token_time[i] = end
        world.totals[g, TOTAL_GENERATED] += 1
        if req.generated[i] == hidden.output_tokens[i]:
            departures += 1
            _depart(world, g, i)
    count[BACKLOG] -= world.batch_counts[g, TOKENS]
    if departures > 0:
        _close_gaps_in_running(world, g)
    time[LAST_DURATION] = time[BATCH_END] - time[BATCH_START]
    count[N_LAST] = world.batch_counts[g, NUM_SEQS]
    count[PARITY] = 1 - count[PARITY]
    count[PHASE] = BOUNDARY_PHASE


@compiled
def _depart(world, g, i):
    req, hidden, count, end = world.req, world.hidden, world.count[g], world.time[g, CLOCK]
    req.phase[i] = ABSENT
    world.kv[g, KV_FREE] += req.kv_blocks[i]
    req.kv_blocks[i] = 0
    hidden.finish[i] = end
    hidden.left[i] = end
    hidden.status[i] = FINISHED
    world.finished[g, count[N_FINISHED]] = i
    count[N_FINISHED] += 1
    count[IN_SYSTEM] -= 1
    world.totals[g, TOTAL_FINISHED] += 1
    per_token = (end - req.first_token[i]) / max(1, req.generated[i] - 1)
    if req.first_token[i] - req.arrival[i] <= req.ttft_slo[i] and per_token <= req.tpot_slo[i]:
        world.time[g, GOOD] += 1.0


@compiled
def _room_in_records(world, g):
    use, count = world.record_use, world.count[g]
    level = use[RECORD_LEVEL]
    if level == 0:
        return True
    engines = len(world.count)  # each may have a batch running whose rows are still to be written
    most = engines * len(world.waiting[g]) if engines > 1 else count[N_RUNNING] + count[N_WAITING]
    if use[USED_GAPS] + most > len(world.record_gaps):
        return False
    if level >= 2 and use[USED_BATCHES] + engines > len(world.record_batches):
        return False
    return level < 3 or use[USED_ENTRIES] + most <= len(world.record_entries)


@compiled
def _describe_batch(world, g):
    """Note how things stand as the batch starts."""
    count, counts, time, row = world.count[g], world.batch_counts[g], world.time[g], world.batch_row[g]
    row[0] = time[BATCH_START]
    row[1] = time[BATCH_END] - time[BATCH_START]
    row[2] = counts[PREFILL_TOKENS]
    row[3] = counts[DECODE_TOKENS]
    row[4] = counts[NUM_SEQS]
    row[5] = count[N_WAITING]
    row[6] = world.kv[g, KV_TOTAL] - world.kv[g, KV_FREE]
    row[7] = count[LOST_SEATS]
    row[8] = count[BACKLOG]
    row[9] = count[IN_SYSTEM]
    row[10] = g
    row[11] = count[LOST_TOKENS]


@compiled
def _record_batch(world, g):
    """Write the rows of the batch that ends now, before it is applied; one that never ends leaves none."""
    use, num_seqs = world.record_use, world.batch_counts[g, NUM_SEQS]
    for k in range(BATCH_COLUMNS):
        world.record_batches[use[USED_BATCHES], k] = world.batch_row[g, k]
    if use[RECORD_LEVEL] >= 3:
        for k in range(num_seqs):
            i = world.batch_requests[g, world.count[g, PARITY], k]
            entry = world.record_entries[use[USED_ENTRIES] + k]
            entry[0] = use[USED_BATCHES]
            entry[1] = i
            entry[2] = world.batch_tokens[g, world.count[g, PARITY], k]
            entry[3] = 1 if world.req.computed[i] < world.req.prefill_tokens[i] else 0
            entry[4] = g
        use[USED_ENTRIES] += num_seqs
    use[USED_BATCHES] += 1


@compiled(inline=True)
def _record_gap(world, g, end, gap):
    """Count an inter-token gap; equal gaps of one batch share a row."""
    use, gaps = world.record_use, world.record_gaps
    last = use[USED_GAPS] - 1
    if last >= 0 and gaps[last, 0] == end and gaps[last, 1] == gap and gaps[last, 3] == g:
        gaps[last, 2] += 1
        return
    row = gaps[use[USED_GAPS]]
    row[0] = end
    row[1] = gap
    row[2] = 1
    row[3] = g
    use[USED_GAPS] += 1
