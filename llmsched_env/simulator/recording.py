"""Writing the rows of batches, their entries and the gaps between tokens while an engine runs."""

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.state import DECODE


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
