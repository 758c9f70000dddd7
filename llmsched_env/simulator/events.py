"""The clock of an engine and what happens to it from outside: requests arrive, and clients give up on them.

Both are in one heap of requests, by the time at which a request is `ready` for its next event.
"""

import numpy as np

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import pop, push
from llmsched_env.simulator.queues import close_gaps_in_running, join_queue, leave_queue, release, work_tokens
from llmsched_env.simulator.state import ABANDONED, ABSENT, ACTIVE, STATUS_REJECTED, WAITING


@compiled(inline=True)
def next_event(world, g):
    """Time of engine `g`'s next arrival or client timeout, inf if there is none."""
    engine = world.engines[g]
    while engine.num_events > 0:
        i = world.events[g, 0]
        if world.hidden.status[i] == ACTIVE:
            return world.hidden.ready[i]
        pop(world.events[g], engine.num_events, world.hidden.ready)  # it has left: nobody waits for it any more
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
    most_kv = req.prompt_tokens[i] + hidden.output_tokens[i] - 1 + engine.separate
    if most_kv > world.kv[g].total * world.kv[g].block_size:  # could never finish on this engine
        hidden.status[i] = STATUS_REJECTED
        hidden.left[i] = clock
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
