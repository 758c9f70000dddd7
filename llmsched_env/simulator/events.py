"""The clock of an engine, and the arrivals it lets in: a heap of requests by the time at which they are ready."""

import numpy as np

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import pop
from llmsched_env.simulator.state import (
    AREA,
    BACKLOG,
    CLOCK,
    IN_SYSTEM,
    KV_BLOCK_SIZE,
    KV_TOTAL,
    N_ARRIVED,
    N_EVENTS,
    N_WAITING,
    SEPARATE,
    STATUS_REJECTED,
    TOTAL_ARRIVED,
    TOTAL_PROMPT_TOKENS,
    WAITING,
    WAITING_HEAD,
)


@compiled
def next_event(world, g):
    """Time of engine `g`'s next arrival, inf if there is none."""
    return world.hidden.ready[world.events[g, 0]] if world.count[g, N_EVENTS] > 0 else np.inf


@compiled
def clock_to(world, g, time):
    """Move engine `g`'s clock to `time`, letting in what arrives on the way and integrating the number in system."""
    count, now = world.count[g], world.time[g]
    while next_event(world, g) <= time:
        at = next_event(world, g)
        i = pop(world.events[g], count[N_EVENTS], world.hidden.ready)
        count[N_EVENTS] -= 1
        now[AREA] += count[IN_SYSTEM] * (at - now[CLOCK])
        now[CLOCK] = at
        _arrive(world, g, i)
    now[AREA] += count[IN_SYSTEM] * (time - now[CLOCK])
    now[CLOCK] = time


@compiled
def _arrive(world, g, i):
    req, hidden, count = world.req, world.hidden, world.count[g]
    clock = world.time[g, CLOCK]
    req.arrival[i] = clock
    world.totals[g, TOTAL_ARRIVED] += 1
    world.totals[g, TOTAL_PROMPT_TOKENS] += req.prompt_tokens[i]
    most_kv = req.prompt_tokens[i] + hidden.output_tokens[i] - 1 + count[SEPARATE]
    if most_kv > world.kv[g, KV_TOTAL] * world.kv[g, KV_BLOCK_SIZE]:  # could never finish on this engine
        hidden.status[i] = STATUS_REJECTED
        hidden.left[i] = clock
        return
    req.phase[i] = WAITING
    count[IN_SYSTEM] += 1
    count[BACKLOG] += work_tokens(world, g, i)
    world.arrived[g, count[N_ARRIVED]] = i
    count[N_ARRIVED] += 1
    join_queue(world, g, i)


@compiled
def work_tokens(world, g, i):
    """Tokens that request `i` has to be given in all: s + o - 1 with_prefill, s + o separate."""
    return world.req.prompt_tokens[i] + world.hidden.output_tokens[i] - 1 + world.count[g, SEPARATE]


@compiled
def join_queue(world, g, i):
    """Append request `i` to the waiting queue."""
    count, queue = world.count[g], world.waiting[g]
    if count[WAITING_HEAD] + count[N_WAITING] == len(queue):
        _move_queue(count, queue, 0)
    queue[count[WAITING_HEAD] + count[N_WAITING]] = i
    count[N_WAITING] += 1


@compiled
def rejoin_queue(world, g, i):
    """Put request `i` at the front of the waiting queue."""
    count, queue = world.count[g], world.waiting[g]
    if count[WAITING_HEAD] == 0:
        _move_queue(count, queue, len(queue) - count[N_WAITING])
    count[WAITING_HEAD] -= 1
    queue[count[WAITING_HEAD]] = i
    count[N_WAITING] += 1


@compiled
def _move_queue(count, queue, head):
    old, n = count[WAITING_HEAD], count[N_WAITING]
    if head < old:
        for k in range(n):
            queue[head + k] = queue[old + k]
    else:
        for k in range(n - 1, -1, -1):
            queue[head + k] = queue[old + k]
    count[WAITING_HEAD] = head
