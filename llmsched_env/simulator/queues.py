"""The waiting queue and the running list of an engine, and how requests leave them."""

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.memory import free_blocks
from llmsched_env.simulator.state import (
    ABSENT,
    ACTIVE,
    ADMITTED,
    BACKLOG,
    CLOCK,
    IN_SYSTEM,
    KV_SWAP_FREE,
    LAST_TOKEN,
    N_DEPARTED,
    N_FINISHED,
    N_RUNNING,
    N_WAITING,
    NETWORKED,
    REJECTED,
    REJECTIONS,
    RUNNING,
    SEPARATE,
    STATUS_REJECTED,
    WAITING,
    WAITING_HEAD,
    prefixes_of,
)


@compiled(inline=True)
def work_tokens(world, g, i):
    """Tokens that request `i` has to be given in all: s + o - 1 with_prefill, s + o separate."""
    return world.req.prompt_tokens[i] + world.hidden.output_tokens[i] - 1 + world.count[g, SEPARATE]


@compiled(inline=True)
def release(world, g, i, status):
    """Request `i` leaves engine `g` and holds nothing any more; the caller takes it from its list.

    With status ACTIVE it goes on at another engine.
    """
    world.req.phase[i] = ABSENT
    world.kv[g, KV_SWAP_FREE] += world.req.swapped[i]
    world.req.swapped[i] = 0
    free_blocks(world.req, prefixes_of(world, g), i)
    world.hidden.status[i] = status
    if status != ACTIVE:
        world.hidden.left[i] = world.time[g, CLOCK]
    if world.count[g, NETWORKED] == 1:
        world.departed[g, world.count[g, N_DEPARTED]] = i
        world.count[g, N_DEPARTED] += 1
    world.finished[g, world.count[g, N_FINISHED]] = i
    world.count[g, N_FINISHED] += 1
    world.count[g, IN_SYSTEM] -= 1


@compiled
def leave_queue(count, queue, phase):
    """Drop absent requests from the waiting queue."""
    kept = count[WAITING_HEAD]
    for k in range(count[WAITING_HEAD], count[WAITING_HEAD] + count[N_WAITING]):
        if phase[queue[k]] != ABSENT:
            queue[kept] = queue[k]
            kept += 1
    count[N_WAITING] = kept - count[WAITING_HEAD]


@compiled
def join_queue(count, queue, i):
    """Append request `i` to the waiting queue."""
    if count[WAITING_HEAD] + count[N_WAITING] == len(queue):
        _move_queue(count, queue, 0)
    queue[count[WAITING_HEAD] + count[N_WAITING]] = i
    count[N_WAITING] += 1


@compiled
def rejoin_queue(count, queue, i):
    """Put request `i` at the front of the waiting queue."""
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


@compiled(inline=True)
def _runs(phase):
    return phase in (RUNNING, LAST_TOKEN)


@compiled(inline=True)
def close_gaps_in_queue(world, g, counts):
    """Drop from the waiting queue what a decision admitted or rejected; usually that is the head of it."""
    req, count, queue = world.req, world.count[g], world.waiting[g]
    gaps = counts[ADMITTED] + counts[REJECTIONS]
    while gaps > 0 and _runs(req.phase[queue[count[WAITING_HEAD]]]):
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
            count[BACKLOG] -= work_tokens(world, g, i) - req.computed[i]
            release(world, g, i, STATUS_REJECTED)
    count[N_WAITING] = kept - count[WAITING_HEAD]


@compiled
def close_gaps_in_running(count, running, phase):
    """Drop from the running list what runs no more."""
    kept = 0
    for k in range(count[N_RUNNING]):
        if _runs(phase[running[k]]):
            running[kept] = running[k]
            kept += 1
    count[N_RUNNING] = kept
