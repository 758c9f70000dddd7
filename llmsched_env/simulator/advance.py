"""The one loop that runs an engine: simulations, environments and everything larger call `advance`."""

import numpy as np

from llmsched_env.simulator.batches import commit, finish_batch, open_batch, start_batch
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.events import clock_to, next_event
from llmsched_env.simulator.recording import room_in_records
from llmsched_env.simulator.state import (
    AHEAD,
    ASKED,
    BATCH_END,
    BUSY_PHASE,
    CLOCK,
    DECIDE,
    DECIDED,
    IN_SYSTEM,
    INCLUSIVE,
    N_ARRIVED,
    N_FINISHED,
    NEXT_EVENT,
    OPEN,
    PENDING,
    PHASE,
    PREEMPTIONS,
    SLOT,
    STALLED_SINCE,
    view_of,
)

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
    count, time = world.count[g], world.time[g]
    while True:
        if count[PENDING] == 1 and count[PHASE] != BUSY_PHASE:
            start_batch(world, g)
        if count[PHASE] == BUSY_PHASE and not _next_is_open(count):
            if time[BATCH_END] > until:
                clock_to(world, g, until)
                return HORIZON
            clock_to(world, g, time[BATCH_END])
            finish_batch(world, g)
            count[ASKED] = 0
            if count[PENDING] == 1:
                continue
        clock_to(world, g, time[CLOCK])
        if count[IN_SYSTEM] == 0:
            if count[PHASE] == BUSY_PHASE:
                count[ASKED] = 1
                continue
            time[STALLED_SINCE] = np.nan
            event = next_event(world, g)
            if event == np.inf:
                return DRAINED
            if event > until:
                clock_to(world, g, until)
                return HORIZON
            clock_to(world, g, event)
            continue
        if time[CLOCK] >= until and (count[INCLUSIVE] == 0 or time[CLOCK] > until):
            return HORIZON
        if count[DECIDE] == 1 and count[DECIDED] == 0:
            return BOUNDARY
        if not room_in_records(world, g):
            return RECORD_FULL
        count[DECIDED] = 0
        if count[OPEN] == 0:
            open_batch(world, g)
        view = view_of(world, g)
        wake = schedulers[count[SLOT]](view)
        if wake == ASK:
            count[OPEN] = 1
            return SELECT
        count[OPEN] = 0
        count[N_ARRIVED] = 0
        count[N_FINISHED] = 0
        commit(world, g)
        if count[PENDING] == 1:
            time[STALLED_SINCE] = np.nan
            continue
        if count[PHASE] == BUSY_PHASE:
            count[ASKED] = 1
            continue
        if count[IN_SYSTEM] == 0:  # all rejected
            continue
        if wake == time[CLOCK] and view.batch.counts[PREEMPTIONS] > 0:  # what it preempted may be admitted now
            continue
        if not wake > time[CLOCK]:
            return BAD_WAKE
        if np.isnan(time[STALLED_SINCE]):
            time[STALLED_SINCE] = time[CLOCK]
        wake = min(wake, next_event(world, g))
        time[NEXT_EVENT] = wake
        if wake > until:
            clock_to(world, g, until)
            return STALLED if wake == np.inf else HORIZON
        if wake == np.inf:
            return STALLED
        clock_to(world, g, wake)


@compiled(inline=True)
def _next_is_open(count):
    """Whether the batch after the running one is still to be decided."""
    return count[AHEAD] == 1 and count[PENDING] == 0 and count[ASKED] == 0
