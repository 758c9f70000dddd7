"""The waiting queue and the running list of an engine, and how requests leave them."""

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.memory import free_blocks
from llmsched_env.simulator.state import ABSENT, ACTIVE, LAST_TOKEN, REJECTED, RUNNING, STATUS_REJECTED, WAITING
from llmsched_env.simulator.world import prefixes_of


@compiled(inline=True)
def work_tokens(world, g, i):
    """Tokens that request `i` has to be given in all: s + o - 1 with_prefill, s + o separate."""
    return world.req.prompt_tokens[i] + world.hidden.output_tokens[i] - 1 + world.engines[g].separate


@compiled(inline=True)
def release(world, g, i, status):
    """Request `i` leaves engine `g` and holds nothing any more; the caller takes it from its list.

    With status ACTIVE it goes on at another engine.
    """
    world.req.phase[i] = ABSENT
    world.kv[g].swap_free += world.req.swapped[i]
    world.req.swapped[i] = 0
    free_blocks(world.req, prefixes_of(world, g), i)
    world.hidden.status[i] = status
    if status != ACTIVE:
        world.hidden.left[i] = world.engines[g].clock
    if world.engines[g].networked == 1:
        world.departed[g, world.engines[g].num_departed] = i
        world.engines[g].num_departed += 1
    world.finished[g, world.engines[g].num_finished] = i
    world.engines[g].num_finished += 1
    world.engines[g].num_in_system -= 1


@compiled
def leave_queue(engine, queue, phase):
    """Drop absent requests from the waiting queue."""
    kept = engine.waiting_head
    for k in range(engine.waiting_head, engine.waiting_head + engine.num_waiting):
        if phase[queue[k]] != ABSENT:
            queue[kept] = queue[k]
            kept += 1
    engine.num_waiting = kept - engine.waiting_head


@compiled
def join_queue(engine, queue, i):
    """Append request `i` to the waiting queue."""
    if engine.waiting_head + engine.num_waiting == len(queue):
        _move_queue(engine, queue, 0)
    queue[engine.waiting_head + engine.num_waiting] = i
    engine.num_waiting += 1


@compiled
def rejoin_queue(engine, queue, i):
    """Put request `i` at the front of the waiting queue."""
    if engine.waiting_head == 0:
        _move_queue(engine, queue, len(queue) - engine.num_waiting)
    engine.waiting_head -= 1
    queue[engine.waiting_head] = i
    engine.num_waiting += 1


@compiled
def _move_queue(engine, queue, head):
    old, n = engine.waiting_head, engine.num_waiting
    if head < old:
        for k in range(n):
            queue[head + k] = queue[old + k]
    else:
        for k in range(n - 1, -1, -1):
            queue[head + k] = queue[old + k]
    engine.waiting_head = head


@compiled(inline=True)
def _runs(phase):
    return phase in (RUNNING, LAST_TOKEN)


@compiled(inline=True)
def close_gaps_in_queue(world, g, counts):
    """Drop from the waiting queue what a decision admitted or rejected; usually that is the head of it."""
    req, engine, queue = world.req, world.engines[g], world.waiting[g]
    gaps = counts.admitted + counts.rejections
    while gaps > 0 and _runs(req.phase[queue[engine.waiting_head]]):
        engine.waiting_head += 1
        engine.num_waiting -= 1
        gaps -= 1
    if gaps == 0:
        return
    end = engine.waiting_head + engine.num_waiting
    kept = engine.waiting_head
    for k in range(engine.waiting_head, end):
        i = queue[k]
        if req.phase[i] == WAITING:
            queue[kept] = i
            kept += 1
        elif req.phase[i] == REJECTED:
            engine.backlog -= work_tokens(world, g, i) - req.computed[i]
            release(world, g, i, STATUS_REJECTED)
    engine.num_waiting = kept - engine.waiting_head


@compiled
def close_gaps_in_running(engine, running, phase):
    """Drop from the running list what runs no more."""
    kept = 0
    for k in range(engine.num_running):
        if _runs(phase[running[k]]):
            running[kept] = running[k]
            kept += 1
    engine.num_running = kept
