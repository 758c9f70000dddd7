"""The one loop that runs an engine: simulations, environments and everything larger call `advance`."""

import numpy as np

from llmsched_env.simulator.batches import commit, finish_batch, open_batch, start_batch
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.events import clock_to, next_event
from llmsched_env.simulator.recording import room_in_records
from llmsched_env.simulator.state import BUSY_PHASE
from llmsched_env.simulator.world import view_of

# Why `advance` returned.
BOUNDARY = 0  # a decision is due before the next batch
HORIZON = 1  # the clock is at `until`
DRAINED = 2  # nothing is present and nothing will arrive
STALLED = 3  # requests are present, but the scheduler does nothing and no event will change that
RECORD_FULL = 4  # the record arrays must grow before the next batch
BAD_WAKE = 5  # the scheduler asked to be woken at a time that is not in the future
SELECT = 6  # the scheduler asks for a choice within the batch under construction

ASK = -1.7e308  # what `compose` returns for that; it is called again, with the batch as it left it, once there is one


@compiled
def advance(world, schedulers, g, until):
    """Run engine `g` until `until` (s) or until something is due; returns why it stopped.

    A batch that ends by `until` is applied, an arrival by `until` is let in, and no batch starts at or after `until`.
    Calling again goes on where it stopped. Batches are not preempted: arrivals wait for the batch boundary
    (arXiv 2504.07347, section 3), and an arrival at a batch's start time is in it.

    (In a network a batch may also start at `until` itself, once all that happens then has happened.)

    With `schedule_ahead` two batches are under way: as one ends, the next starts, and the one after that is decided.
    """
    engine = world.engines[g]
    while True:
        if engine.pending == 1 and engine.phase != BUSY_PHASE:
            start_batch(world, g)
        if engine.phase == BUSY_PHASE and not _next_is_open(engine):
            if engine.batch_end > until:
                clock_to(world, g, until)
                return HORIZON
            clock_to(world, g, engine.batch_end)
            finish_batch(world, g)
            engine.asked = 0
            if engine.pending == 1:
                continue
        clock_to(world, g, engine.clock)
        if engine.num_in_system == 0:
            if engine.phase == BUSY_PHASE:
                engine.asked = 1
                continue
            engine.stalled_since = np.nan
            event = next_event(world, g)
            if event == np.inf:
                return DRAINED
            if event > until:
                clock_to(world, g, until)
                return HORIZON
            clock_to(world, g, event)
            continue
        if engine.clock >= until and (engine.inclusive == 0 or engine.clock > until):
            return HORIZON
        if engine.stops_to_decide == 1 and engine.decided == 0:
            return BOUNDARY
        if not room_in_records(world, g):
            return RECORD_FULL
        engine.decided = 0
        if engine.selecting == 0:
            open_batch(world, g)
        view = view_of(world, g)
        wake = schedulers[engine.scheduler](view)
        if wake == ASK:
            engine.selecting = 1
            return SELECT
        engine.selecting = 0
        engine.num_arrived = 0
        engine.num_finished = 0
        commit(world, g)
        if engine.pending == 1:
            engine.stalled_since = np.nan
            continue
        if engine.phase == BUSY_PHASE:
            engine.asked = 1
            continue
        if engine.num_in_system == 0:  # all rejected
            continue
        if wake == engine.clock and view.batch.counts.preemptions > 0:  # what it preempted may be admitted now
            continue
        if not wake > engine.clock:
            return BAD_WAKE
        if np.isnan(engine.stalled_since):
            engine.stalled_since = engine.clock
        wake = min(wake, next_event(world, g))
        engine.next_event = wake
        if wake > until:
            clock_to(world, g, until)
            return STALLED if wake == np.inf else HORIZON
        if wake == np.inf:
            return STALLED
        clock_to(world, g, wake)


@compiled(inline=True)
def _next_is_open(engine):
    """Whether the batch after the running one is still to be decided."""
    return engine.schedule_ahead == 1 and engine.pending == 0 and engine.asked == 0
