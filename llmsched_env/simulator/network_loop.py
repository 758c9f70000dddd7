"""The one loop that runs a network of engines, in order of events.

At one moment, first all batches that end then are applied and all calls that become ready then are routed; only then
do batches start. So an arrival at the start of a batch is in it, wherever it comes from.
"""

import numpy as np

from llmsched_env.compiled import compiled
from llmsched_env.simulator.loop import (
    BAD_WAKE,
    BOUNDARY,
    DRAINED,
    HORIZON,
    PAUSED,
    RECORD_FULL,
    SELECT,
    STALLED,
    STUCK,
    advance,
    clock_to,
    next_event,
)
from llmsched_env.simulator.network_state import DECODE_ONLY, PREFILL_ONLY, Fleet
from llmsched_env.simulator.ordering import pop, push
from llmsched_env.simulator.state import ACTIVE, BUSY_PHASE, FINISHED

LISTS_FULL = 7  # the lists of an engine must grow before the next call arrives
ROUTE = 8  # a routing decision is due
TASKS_LOW = 12  # more tasks of a closed loop must be drawn
BAD_ROUTE = 11  # the router has sent a call to an engine that there is not, or that it may not go to
STARTS_AT_ONCE = 4  # a user starts fewer tasks than this, even if all are rejected, before the loop turns
_GO_ON = -1
_ASK_OUTSIDE = -(2**62)


@compiled
def advance_network(world, network, schedulers, route, until):
    """Run all engines until `until` (s) or until something is due; returns why it stopped.

    With HORIZON, all that happens up to `until` has happened, and no batch has started at it. Calling again goes on
    where it stopped; `network.control.at_engine` is the engine at which a decision is due, or whose scheduler is at
    fault.
    """
    while True:
        if not _enough_tasks(network):
            return TASKS_LOW
        now = _next_time(world, network)
        if now > until or now == np.inf:
            if until < np.inf:
                _rest_until(world, network, schedulers, until)
                return HORIZON
            return STALLED if _anybody(world) else DRAINED
        network.control.clock = now
        reason = _let_calls_in(world, network, route, now)
        if reason != _GO_ON:
            return reason
        _finish_batches(world, network, schedulers, now)
        reason = _let_calls_in(world, network, route, now)  # those that the ends of others released
        if reason != _GO_ON:
            return reason
        if now >= until:
            _rest_until(world, network, schedulers, until)  # lets those in that were released just now
            return HORIZON
        reason = _start_batches(world, network, schedulers, now)
        if reason != _GO_ON:
            return reason


@compiled(inline=True)
def _enough_tasks(network):
    """Whether the table holds all tasks that can start before this is asked again."""
    control = network.control
    return control.has_more == 0 or control.next_task + STARTS_AT_ONCE * control.users <= control.num_tasks


@compiled
def _next_time(world, network):
    now = np.inf
    for g in range(len(world.engines)):
        now = min(now, world.engines[g].next_event)
    if network.control.num_calls > 0:
        now = min(now, world.hidden.ready[network.calls[0]])
    return now


@compiled(inline=True)
def _anybody(world):
    present = 0
    for g in range(len(world.engines)):
        present += world.engines[g].num_in_system
    return present > 0


@compiled
def _rest_until(world, network, schedulers, until):
    network.control.clock = until
    for g in range(len(world.engines)):
        _finish_batch(world, network, schedulers, g, until)


@compiled(inline=True)
def _finish_batches(world, network, schedulers, now):
    for g in range(len(world.engines)):
        if world.engines[g].next_event <= now:
            network.touched[g] = 1
        if network.touched[g] == 1:
            _finish_batch(world, network, schedulers, g, now)
            world.engines[g].next_event = now  # it is still to be asked for a batch


@compiled
def _finish_batch(world, network, schedulers, g, now):
    """Bring engine `g` up to `now`. One that runs no batch is only moved there: `advance` would ask for one earlier."""
    world.engines[g].inclusive = 0
    if world.engines[g].phase == BUSY_PHASE:
        advance(world, schedulers, g, now)
    else:
        clock_to(world, g, now)
    _see_off(world, network, g)


@compiled(inline=True)
def _start_batches(world, network, schedulers, now):
    for g in range(len(world.engines)):
        if network.touched[g] == 1:
            world.engines[g].inclusive = 1
            reason = advance(world, schedulers, g, now)
            if reason in (BOUNDARY, SELECT, RECORD_FULL, BAD_WAKE, PAUSED, STUCK):
                network.control.at_engine = g
                return reason
            _see_off(world, network, g)
            network.touched[g] = 0
            _note_next_event(world, g, reason)
    return _GO_ON


@compiled(inline=True)
def _note_next_event(world, g, reason):
    engine = world.engines[g]
    if world.engines[g].phase == BUSY_PHASE:
        engine.next_event = engine.batch_end
    elif reason in (DRAINED, STALLED) or world.engines[g].num_in_system == 0:
        engine.next_event = next_event(world, g)
    # else it has composed nothing, and `advance` has noted when it is to be asked again


@compiled
def _let_calls_in(world, network, route, now):
    """Bind the calls that are ready by `now` to engines; a reason to stop, or _GO_ON."""
    control = network.control
    while control.num_calls > 0 and world.hidden.ready[network.calls[0]] <= now:
        i = network.calls[0]
        g = network.pinned[i]
        if g < 0:
            g = _choose(world, network, route, i, now)
            if g == _ASK_OUTSIDE:
                return ROUTE
            if g < 0 or g >= len(world.engines) or network.allowed[g] == 0:
                control.choice = 0
                control.at_engine = g
                return BAD_ROUTE
        engine = world.engines[g]
        if max(engine.num_in_system + engine.num_events, engine.num_arrived, engine.num_finished) + 1 >= len(
            world.waiting[g]
        ):
            control.at_engine = g
            return LISTS_FULL
        pop(network.calls, control.num_calls, world.hidden.ready)
        control.num_calls -= 1
        control.choice = 0
        control.routing = 0
        _bind(world, network, i, g, now)
    return _GO_ON


@compiled(inline=True)
def _choose(world, network, route, i, now):
    """The engine that a router sends call `i` to, _ASK_OUTSIDE if one outside has to be asked first."""
    control = network.control
    if control.choice == 0:
        fleet = fleet_of(world, network, i, now)
        if control.asks_outside == 1:
            control.routing = i + 1
            return _ASK_OUTSIDE
        g = route(fleet, i)
        if g < 0:
            return max(g, -(2**61))
        control.choice = g + 1  # kept, so that it is not asked again if the lists have to grow first
    return control.choice - 1


@compiled(inline=True)
def fleet_of(world, network, i, now):
    """What a router sees as call `i` is to be bound."""
    moving = world.req.swapped[i] > 0
    for g in range(len(network.role)):
        network.allowed[g] = network.role[g] != (PREFILL_ONLY if moving else DECODE_ONLY)
    return Fleet(
        world.req,
        world.engines,
        world.kv,
        world.totals,
        world.believed_law,
        world.cache_slots,
        world.cache_entries,
        network.outstanding,
        network.allowed,
        now,
        network.params,
        network.memory,
        network.rng,
    )


@compiled(inline=True)
def _bind(world, network, i, g, now):
    hidden = world.hidden
    hidden.ready[i] = now
    hidden.leave_after[i] = 1 if network.role[g] == PREFILL_ONLY else hidden.output_tokens[i]
    push(world.events[g], world.engines[g].num_events, i, hidden.ready)
    world.engines[g].num_events += 1
    hidden.engine[i] = g
    _count_outstanding(world, network, i, 1.0)
    network.touched[g] = 1
    world.engines[g].next_event = now  # so that it is not forgotten if the loop has to stop before its batch starts


@compiled(inline=True)
def _count_outstanding(world, network, i, sign):
    load, req = network.outstanding[world.hidden.engine[i]], world.req
    known = req.known_output[i]
    load.calls += sign
    load.prompt_tokens += sign * req.prompt_tokens[i]
    load.known_work += sign * (req.prompt_tokens[i] + (0.0 if np.isnan(known) else known))
    world.classes[req.klass[i]].present += sign


@compiled
def _see_off(world, network, g):
    """Calls that have left engine `g` release those that wait for them, or go on at another engine."""
    engine = world.engines[g]
    for k in range(engine.num_departed):
        i = world.departed[g, k]
        _count_outstanding(world, network, i, -1.0)
        if world.hidden.status[i] == ACTIVE:
            _hand_over(world, network, g, i)
        elif world.hidden.status[i] == FINISHED:
            _release_next(world, network, i)
        else:
            _go_on(world, network, i)
    engine.num_departed = 0


@compiled(inline=True)
def _hand_over(world, network, g, i):
    """The KV of call `i` moves to an engine that decodes."""
    req, size = world.req, world.kv[g].block_size
    req.swapped[i] = (req.computed[i] + size - 1) // size
    seconds = network.control.handover_per_call + network.control.handover_per_token * req.computed[i]
    if world.engines[g].hands_over == 1:
        _take_back_first_token(world, g, i)
    world.hidden.ready[i] = network.control.clock + seconds
    push(network.calls, network.control.num_calls, i, world.hidden.ready)
    network.control.num_calls += 1


@compiled(inline=True)
def _take_back_first_token(world, g, i):
    """Nobody gets the token that the prompt of call `i` yielded: a decode of the last prompt token yields it again."""
    req = world.req
    req.generated[i] = 0
    req.first_token[i] = np.nan
    req.last_token_time[i] = np.nan
    world.totals[g].generated -= 1
    req.computed[i] -= 1
    req.prefill_tokens[i] = req.computed[i]
    world.hidden.recomputed[i] += 1
    world.totals[g].recomputed += 1


@compiled(inline=True)
def _release_next(world, network, i):
    req, hidden, task = world.req, world.hidden, world.req.task[i]
    path = network.done_before[i] + req.computed[i]
    world.tasks[task].longest_path = max(world.tasks[task].longest_path, path)
    world.tasks[task].calls_left -= 1.0
    if world.tasks[task].calls_left == 0.0:
        network.task_finish[task] = hidden.finish[i]
        _go_on(world, network, i)
    for k in range(network.first_next[i], network.first_next[i + 1]):
        j = network.next[k]
        network.done_before[j] = max(network.done_before[j], path)
        network.waits_for[j] -= 1
        if network.waits_for[j] == 0:
            hidden.ready[j] = max(hidden.ready[j], hidden.finish[i] + network.delay[j])
            push(network.calls, network.control.num_calls, j, hidden.ready)
            network.control.num_calls += 1


@compiled(inline=True)
def _go_on(world, network, i):
    """The user whose task has ended with call `i`, finished or not, starts the next one."""
    control, task = network.control, world.req.task[i]
    if control.users > 0 and network.ended[task] == 0 and control.next_task < control.num_tasks:
        network.ended[task] = 1
        start = world.hidden.left[i] + network.think[control.next_task]
        if start < control.until:
            _start_task(world, network, control.next_task, start, world.req.client[i])
            control.next_task += 1


@compiled
def _start_task(world, network, task, start, client):
    world.tasks[task].arrival = start
    for j in range(network.first_call[task], network.first_call[task + 1]):
        world.req.client[j] = client
        if network.waits_for[j] == 0:
            world.hidden.ready[j] = start + network.delay[j]
            push(network.calls, network.control.num_calls, j, world.hidden.ready)
            network.control.num_calls += 1
