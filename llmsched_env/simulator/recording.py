"""Writing the rows of batches, their entries and the gaps between tokens while an engine runs."""

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.state import (
    BACKLOG,
    BATCH_COLUMNS,
    BATCH_END,
    BATCH_START,
    CLOCK,
    DECODE,
    DECODE_TOKENS,
    IN_SYSTEM,
    KV_FREE,
    KV_TOTAL,
    LOST_HITS,
    LOST_SEATS,
    LOST_SWAPS,
    LOST_TOKENS,
    N_RUNNING,
    N_WAITING,
    NUM_SEQS,
    PREFILL_TOKENS,
    RECORD_LEVEL,
    RUN,
    USED_BATCHES,
    USED_ENTRIES,
    USED_GAPS,
)


@compiled(inline=True)
def room_in_records(world, g):
    """Whether the record arrays can take the rows of all batches under way and of one more."""
    use, count = world.record_use, world.count[g]
    level = use[RECORD_LEVEL]
    if level == 0:
        return True
    engines = len(world.count)
    if engines > 1:  # each may have batches under way whose rows are still to be written
        most = 2 * engines * len(world.waiting[g])
    else:
        most = world.batch_counts[g, count[RUN], NUM_SEQS] + count[N_RUNNING] + count[N_WAITING]
    if use[USED_GAPS] + most > len(world.record_gaps):
        return False
    if level >= 2 and use[USED_BATCHES] + 2 * engines > len(world.record_batches):
        return False
    return level < 3 or use[USED_ENTRIES] + most <= len(world.record_entries)


@compiled(inline=True)
def describe_decision(world, g, k):
    """Note how things stand as batch `k` has been decided."""
    count, counts, row = world.count[g], world.batch_counts[g, k], world.batch_row[g, k]
    row[2] = counts[PREFILL_TOKENS]
    row[3] = counts[DECODE_TOKENS]
    row[4] = counts[NUM_SEQS]
    row[5] = count[N_WAITING]
    row[6] = world.kv[g, KV_TOTAL] - world.kv[g, KV_FREE]
    row[7] = count[LOST_SEATS]
    row[10] = g
    row[11] = count[LOST_TOKENS]
    row[12] = count[LOST_HITS]
    row[13] = count[LOST_SWAPS]
    row[14] = count[N_RUNNING]
    row[15] = world.time[g, CLOCK]


@compiled(inline=True)
def describe_start(world, g, k):
    """Note how things stand as batch `k` starts."""
    count, time, row = world.count[g], world.time[g], world.batch_row[g, k]
    row[0] = time[BATCH_START]
    row[1] = time[BATCH_END] - time[BATCH_START]
    row[8] = count[BACKLOG]
    row[9] = count[IN_SYSTEM]


@compiled(inline=True)
def record_batch(world, g, k):
    """Write the rows of batch `k`, which ends now; one that never ends leaves none."""
    use, num_seqs = world.record_use, world.batch_counts[g, k, NUM_SEQS]
    for column in range(BATCH_COLUMNS):
        world.record_batches[use[USED_BATCHES], column] = world.batch_row[g, k, column]
    if use[RECORD_LEVEL] >= 3:
        for place in range(num_seqs):
            entry = world.record_entries[use[USED_ENTRIES] + place]
            entry[0] = use[USED_BATCHES]
            entry[1] = world.batch_requests[g, k, place]
            entry[2] = world.batch_tokens[g, k, place]
            entry[3] = 0 if world.batch_kinds[g, k, place] == DECODE else 1
            entry[4] = world.batch_contexts[g, k, place]
            entry[5] = g
        use[USED_ENTRIES] += num_seqs
    use[USED_BATCHES] += 1


@compiled(inline=True)
def record_gap(world, g, end, gap):
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
