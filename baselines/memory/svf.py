"""Smallest volume first, and Sorted-F: orders for requests whose prompts differ, with MC-SF's look ahead."""

from math import inf

from baselines.memory.look_ahead import (
    LOOK_AHEAD_COLUMNS,
    LOOK_AHEAD_MEMORY,
    LOOKS_AHEAD,
    PARAMS,
    admit,
    admit_least_key,
    expected_left,
    go_on,
    look_ahead,
    may_admit,
)
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import request_memory
from llmsched_env.simulator.ordering import heapify, pop
from llmsched_env.simulator.primitives import again_if_preempted
from llmsched_env.simulator.scheduler import Scheduler

SORTED_F_COLUMNS = (*LOOK_AHEAD_COLUMNS, "place")  # place: in the list of Sorted-F, from 1 on; 0: not listed
look_ahead_columns, own = request_memory(LOOK_AHEAD_COLUMNS), request_memory(SORTED_F_COLUMNS)
_HALVINGS = 10


@compiled
def compose(view):
    """Waiting requests by volume s o + o (o + 1)/2, the memory they take over their life, after all active ones.

    The look ahead decides how many enter (`baselines.memory.look_ahead`). The paper plans a backlog of known lengths.
    Here the lengths are predictions, arrivals join the order, and of a preempted request only what is left counts.
    """
    go_on(view)
    key = look_ahead_columns(view).key
    for i in view.waiting:
        left = expected_left(view, i)
        key[i] = view.req.prefill_tokens[i] * left + left * (left + 1.0) / 2.0
    return admit_least_key(view)


@compiled
def compose_sorted_f(view):
    """Waiting requests in the order of batches that minimise F(X) = sum of outputs / |X|^2, inside each by output.

    The paper lists a whole backlog: of what is left it picks the set X of least F whose largest uses s + o fit into
    memory together, and appends it. Here the next X is picked when the last one has been admitted, from all that wait
    then; requests that are preempted wait for a later X. The least F is found by a greedy rule of our own: among
    requests that use at most M/2^q, for q = 0..9, outputs ascending as long as the next one lowers F and fits. The best
    of these ten sets is taken.
    """
    go_on(view)
    if may_admit(view):
        look_ahead(view)
        while _admit_list(view) and _list_next(view):
            pass
    return again_if_preempted(view)


@compiled
def _admit_list(view):
    """Admit the listed requests in order; returns whether all of them entered."""
    heap, place, left = view.mem.heap, own(view).place, 0
    for i in view.waiting:
        if place[i] > 0.0:
            heap[left] = i
            left += 1
    heapify(heap, left, place)
    while left > 0:
        i = pop(heap, left, place)
        if not admit(view, i):
            return False
        place[i] = 0.0
        left -= 1
    return True


@compiled
def _list_next(view):
    """List the requests of the next X, from those that still wait; False if there are none."""
    order, outputs, size = view.mem.heap, own(view).key, 0
    for i in view.waiting:
        if view.req.scheduled[i] == 0:
            order[size] = i
            outputs[i] = expected_left(view, i)
            size += 1
    heapify(order, size, outputs)
    for left in range(size, 0, -1):  # what is popped goes to the end: outputs descend
        i = pop(order, left, outputs)
        order[left - 1] = i
    limit = float(view.kv.total * view.kv.block_size)
    least, least_limit = inf, limit
    for _ in range(_HALVINGS):
        quality = _pick(view, size, limit, False)
        if quality < least:
            least, least_limit = quality, limit
        limit /= 2.0
    _pick(view, size, least_limit, True)
    return size > 0


@compiled
def _pick(view, size, limit, give):
    """F of the set among requests that use at most `limit` tokens, inf if it is empty; with `give` it is listed."""
    keep, total = own(view), float(view.kv.total * view.kv.block_size)
    outputs, number, room = 0.0, 0.0, total
    for k in range(size - 1, -1, -1):
        i = view.mem.heap[k]
        output = keep.key[i]
        peak = min(total, view.req.prefill_tokens[i] + output)
        if peak > limit or peak > room:
            continue
        if number > 0.0 and (outputs + output) * number * number >= outputs * (number + 1.0) * (number + 1.0):
            break
        outputs += output
        number += 1.0
        room -= peak
        if give:
            keep.place[i] = number
    return outputs / (number * number) if number > 0.0 else inf


svf = register_scheduler(
    Scheduler(
        "svf",
        compose,
        params=PARAMS,
        memory={"request": LOOK_AHEAD_COLUMNS, "engine": LOOK_AHEAD_MEMORY, "heap": ()},
        needs_lengths="predicted",
        reference="smallest volume first, arXiv 2606.22327",
        **LOOKS_AHEAD,
    )
)
sorted_f = register_scheduler(
    Scheduler(
        "sorted_f",
        compose_sorted_f,
        params=PARAMS,
        memory={"request": SORTED_F_COLUMNS, "engine": LOOK_AHEAD_MEMORY, "heap": ()},
        needs_lengths="predicted",
        reference="Sorted-F, arXiv 2508.06133; the greedy choice of X is ours",
        **LOOKS_AHEAD,
    )
)
