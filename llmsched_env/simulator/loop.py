"""The one loop that runs an engine, from the arrival of a request to its departure.

Simulations, environments and everything larger call `advance`. What is to come is a heap of arrivals and client
timeouts, by the time at which a request is `ready` for its next event.
"""

import numpy as np

from llmsched_env.compiled import compiled
from llmsched_env.simulator.batches import (
    close_gaps_in_running,
    commit,
    finish_batch,
    join_queue,
    leave_queue,
    open_batch,
    release,
    start_batch,
    work_tokens,
)
from llmsched_env.simulator.ordering import pop, push
from llmsched_env.simulator.recording import room_in_records
from llmsched_env.simulator.state import ABANDONED, ABSENT, ACTIVE, BUSY_PHASE, STATUS_REJECTED, WAITING
from llmsched_env.simulator.world import view_of

# Why `advance` returned.
BOUNDARY = 0  # a decision is due before the next batch
HORIZON = 1  # the clock is at `until`
DRAINED = 2  # nothing is present and nothing will arrive
STALLED = 3  # requests are present, but the scheduler does nothing and no event will change that
RECORD_FULL = 4  # the record arrays must grow before the next batch
BAD_WAKE = 5  # the scheduler asked to be woken at a time that is not in the future
SELECT = 6  # the scheduler asks for a choice within the batch under construction
PAUSED = 9  # `recording.pause_at` decisions have been taken; calling again goes on
STUCK = 10  # the scheduler composes nothing, and asks to be woken again and again while time hardly moves

_IDLE_ASKS, _IDLE_SECONDS = 100_000, 1e-3  # STUCK: so often in a row, within so little time

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
        recording = world.recording
        if recording.pause_at > 0 and recording.decisions >= recording.pause_at:
            return PAUSED
        recording.decisions += 1
        engine.decided = 0
        if engine.selecting == 0:
            open_batch(world, g)
        view = view_of(world, g)
        wake = schedulers[engine.scheduler](view)
        if wake == ASK:
            engine.selecting = 1
            return STUCK if _gets_nowhere(engine) else SELECT
        engine.selecting = 0
        engine.num_arrived = 0
        engine.num_finished = 0
        commit(world, g)
        if engine.pending == 1:
            engine.stalled_since = np.nan
            engine.idle_asks = 0
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
        if _gets_nowhere(engine):
            return STUCK
        wake = min(wake, next_event(world, g))
        engine.next_event = wake
        if wake > until:
            clock_to(world, g, until)
            return STALLED if wake == np.inf else HORIZON
        if wake == np.inf:
            return STALLED
        clock_to(world, g, wake)


@compiled
def advance_alone(world, compose, g, until):
    """`advance` where one scheduler composes the batches of all engines.

    Compiled code is handed one function instead of a tuple of them: each costs microseconds to look up at every call.
    """
    return advance(world, (compose, compose, compose, compose, compose, compose, compose, compose), g, until)


@compiled(inline=True)
def _gets_nowhere(engine):
    """Count that the scheduler has been asked and has composed nothing; whether time stands still meanwhile."""
    if engine.idle_asks == 0:
        engine.idle_since = engine.clock
    engine.idle_asks += 1
    if engine.idle_asks < _IDLE_ASKS:
        return False
    engine.idle_asks = 0
    return engine.clock - engine.idle_since < _IDLE_SECONDS


@compiled(inline=True)
def _next_is_open(engine):
    """Whether the batch after the running one is still to be decided."""
    return engine.schedule_ahead == 1 and engine.pending == 0 and engine.asked == 0


@compiled(inline=True)
def next_event(world, g):
    """Time of engine `g`'s next arrival or client timeout, inf if there is none."""
    engine = world.engines[g]
    while engine.num_events > 0:
        i = world.events[g, 0]
        if world.hidden.status[i] == ACTIVE:
            return world.hidden.ready[i]
        pop(world.events[g], engine.num_events, world.hidden.ready)  # it has left already
        engine.num_events -= 1
    return np.inf


@compiled(inline=True)
def clock_to(world, g, time):
    """Move engine `g`'s clock to `time`, with all events on the way, and integrate the number in system."""
    engine = world.engines[g]
    if engine.num_events > 0 and world.hidden.ready[world.events[g, 0]] <= time:
        _events_until(world, g, time)
    engine.request_seconds += engine.num_in_system * (time - engine.clock)
    engine.clock = time


@compiled
def _events_until(world, g, time):
    engine = world.engines[g]
    while True:
        at = next_event(world, g)
        if at > time or at == np.inf:
            break
        i = pop(world.events[g], engine.num_events, world.hidden.ready)
        engine.num_events -= 1
        engine.request_seconds += engine.num_in_system * (at - engine.clock)
        engine.clock = at
        if world.req.phase[i] == ABSENT:
            _arrive(world, g, i)
        else:
            _give_up(world, g, i)


@compiled(inline=True)
def _arrive(world, g, i):
    req, hidden, engine = world.req, world.hidden, world.engines[g]
    clock = world.engines[g].clock
    if np.isnan(req.arrival[i]):
        req.arrival[i] = clock
    hidden.engine[i] = g
    world.totals[g].arrived += 1
    world.totals[g].prompt_tokens += req.prompt_tokens[i]
    tokens = req.prompt_tokens[i] + hidden.output_tokens[i]
    most_kv = tokens - 1 + engine.separate
    if most_kv > world.kv[g].total * world.kv[g].block_size or tokens > engine.max_model_len:  # could never finish here
        hidden.status[i] = STATUS_REJECTED
        hidden.left[i] = clock
        if tokens > engine.max_model_len:
            engine.num_too_long += 1
        if engine.networked == 1:
            world.departed[g, engine.num_departed] = i
            engine.num_departed += 1
        return
    req.phase[i] = WAITING
    world.kv[g].swap_free -= req.swapped[i]  # KV that came along from another engine takes room on this host
    engine.num_in_system += 1
    engine.backlog += work_tokens(world, g, i) - req.computed[i]
    world.arrived[g, engine.num_arrived] = i
    engine.num_arrived += 1
    join_queue(engine, world.waiting[g], i)
    if hidden.timeout[i] < np.inf:
        hidden.ready[i] = max(clock, req.arrival[i] + hidden.timeout[i])
        push(world.events[g], engine.num_events, i, hidden.ready)
        engine.num_events += 1


@compiled(inline=True)
def _give_up(world, g, i):
    """The client of request `i` hangs up: what it held is free. Tokens of it that are being computed are lost."""
    req, engine = world.req, world.engines[g]
    engine.has_abandoned = 1
    engine.backlog -= work_tokens(world, g, i) - req.computed[i]
    waited = req.phase[i] == WAITING
    release(world, g, i, ABANDONED)
    if waited:
        leave_queue(engine, world.waiting[g], req.phase)
    else:
        close_gaps_in_running(engine, world.running[g], req.phase)
