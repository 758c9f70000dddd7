"""The clock of an engine and what happens to it from outside: requests arrive, and clients give up on them.

Both are in one heap of requests, by the time at which a request is `ready` for its next event.
"""

import numpy as np

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import pop, push
from llmsched_env.simulator.queues import close_gaps_in_running, join_queue, leave_queue, release, work_tokens
from llmsched_env.simulator.state import (
    ABANDONED,
    ABSENT,
    ACTIVE,
    AREA,
    BACKLOG,
    CLOCK,
    GAVE_UP,
    IN_SYSTEM,
    KV_BLOCK_SIZE,
    KV_SWAP_FREE,
    KV_TOTAL,
    N_ARRIVED,
    N_DEPARTED,
    N_EVENTS,
    NETWORKED,
    SEPARATE,
    STATUS_REJECTED,
    TOTAL_ARRIVED,
    TOTAL_PROMPT_TOKENS,
    WAITING,
)


@compiled(inline=True)
def next_event(world, g):
    """Time of engine `g`'s next arrival or client timeout, inf if there is none."""
    count = world.count[g]
    while count[N_EVENTS] > 0:
        i = world.events[g, 0]
        if world.hidden.status[i] == ACTIVE:
            return world.hidden.ready[i]
        pop(world.events[g], count[N_EVENTS], world.hidden.ready)  # it has left: nobody waits for it any more
        count[N_EVENTS] -= 1
    return np.inf


@compiled(inline=True)
def clock_to(world, g, time):
    """Move engine `g`'s clock to `time`, with all events on the way, and integrate the number in system."""
    count, now = world.count[g], world.time[g]
    if count[N_EVENTS] > 0 and world.hidden.ready[world.events[g, 0]] <= time:
        _events_until(world, g, time)
    now[AREA] += count[IN_SYSTEM] * (time - now[CLOCK])
    now[CLOCK] = time


@compiled
def _events_until(world, g, time):
    count, now = world.count[g], world.time[g]
    while True:
        at = next_event(world, g)
        if at > time or at == np.inf:
            break
        i = pop(world.events[g], count[N_EVENTS], world.hidden.ready)
        count[N_EVENTS] -= 1
        now[AREA] += count[IN_SYSTEM] * (at - now[CLOCK])
        now[CLOCK] = at
        if world.req.phase[i] == ABSENT:
            _arrive(world, g, i)
        else:
            _give_up(world, g, i)


@compiled(inline=True)
def _arrive(world, g, i):
    req, hidden, count = world.req, world.hidden, world.count[g]
    clock = world.time[g, CLOCK]
    if np.isnan(req.arrival[i]):
        req.arrival[i] = clock
    hidden.engine[i] = g
    world.totals[g, TOTAL_ARRIVED] += 1
    world.totals[g, TOTAL_PROMPT_TOKENS] += req.prompt_tokens[i]
    most_kv = req.prompt_tokens[i] + hidden.output_tokens[i] - 1 + count[SEPARATE]
    if most_kv > world.kv[g, KV_TOTAL] * world.kv[g, KV_BLOCK_SIZE]:  # could never finish on this engine
        hidden.status[i] = STATUS_REJECTED
        hidden.left[i] = clock
        if count[NETWORKED] == 1:
            world.departed[g, count[N_DEPARTED]] = i
            count[N_DEPARTED] += 1
        return
    req.phase[i] = WAITING
    world.kv[g, KV_SWAP_FREE] -= req.swapped[i]  # KV that came along from another engine takes room on this host
    count[IN_SYSTEM] += 1
    count[BACKLOG] += work_tokens(world, g, i) - req.computed[i]
    world.arrived[g, count[N_ARRIVED]] = i
    count[N_ARRIVED] += 1
    join_queue(count, world.waiting[g], i)
    if hidden.timeout[i] < np.inf:
        hidden.ready[i] = max(clock, req.arrival[i] + hidden.timeout[i])
        push(world.events[g], count[N_EVENTS], i, hidden.ready)
        count[N_EVENTS] += 1


@compiled(inline=True)
def _give_up(world, g, i):
    """The client of request `i` hangs up: what it held is free. Tokens of it that are being computed are lost."""
    req, count = world.req, world.count[g]
    count[GAVE_UP] = 1
    count[BACKLOG] -= work_tokens(world, g, i) - req.computed[i]
    waited = req.phase[i] == WAITING
    release(world, g, i, ABANDONED)
    if waited:
        leave_queue(count, world.waiting[g], req.phase)
    else:
        close_gaps_in_running(count, world.running[g], req.phase)
