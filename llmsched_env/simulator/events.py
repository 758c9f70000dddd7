"""Arrivals to come, as a heap by (time, request), and the clock that lets them in."""

import numpy as np

from llmsched_env.simulator.compiled import compiled
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
def push_event(times, requests, size, time, request):
    """Add an event to the heap of `size` events; the caller counts it."""
    k = size
    while k > 0:
        parent = (k - 1) // 2
        if times[parent] < time or (times[parent] == time and requests[parent] < request):
            break
        times[k], requests[k] = times[parent], requests[parent]
        k = parent
    times[k], requests[k] = time, request


@compiled
def pop_event(times, requests, size):
    """Remove and return the request of the earliest of `size` events; the caller counts it."""
    first = requests[0]
    size -= 1
    time, request = times[size], requests[size]
    k = 0
    while 2 * k + 1 < size:
        child = 2 * k + 1
        right = child + 1
        if right < size and (
            times[right] < times[child] or (times[right] == times[child] and requests[right] < requests[child])
        ):
            child = right
        if time < times[child] or (time == times[child] and request < requests[child]):
            break
        times[k], requests[k] = times[child], requests[child]
        k = child
    times[k], requests[k] = time, request
    return first


@compiled
def next_event(world, g):
    """Time of engine `g`'s next arrival, inf if there is none."""
    return world.event_time[g, 0] if world.count[g, N_EVENTS] > 0 else np.inf


@compiled
def clock_to(world, g, time):
    """Move engine `g`'s clock to `time`, letting in what arrives on the way and integrating the number in system."""
    count, now = world.count[g], world.time[g]
    while count[N_EVENTS] > 0 and world.event_time[g, 0] <= time:
        at = world.event_time[g, 0]
        i = pop_event(world.event_time[g], world.event_request[g], count[N_EVENTS])
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
