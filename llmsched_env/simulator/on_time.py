"""The most waiting requests whose prefill can still be done in time (Moore 1968, the algorithm of Hodgson)."""

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import heapify, pop, push
from llmsched_env.simulator.primitives import prefill_left


@compiled
def drop_late(view, start, seconds_per_token, due, size, dropped):
    """Mark the waiting requests outside a largest set that meets its due times; returns how many those are.

    One prompt is taken to be prefilled after the other, from time `start` (s) on, at `seconds_per_token`. In order of
    their due times, whenever one would be late the longest so far is dropped: no other choice lets more be on time. The
    scheduler must declare a heap.

    Args:
        view: the view.
        start: when prefill of the first one begins.
        seconds_per_token: of prefill.
        due: column of request memory that holds due times in s, by when prefill must be done,
        size: for seconds of prefill, left there as negative numbers,
        dropped: and for the mark: 1 or 0.
    """
    n, heap, columns = len(view.waiting), view.mem.heap, view.mem.request
    dues, sizes = columns[:, due], columns[:, size]
    for k in range(n):
        i = view.waiting[k]
        heap[k] = i
        dues[i] = -dues[i]
        sizes[i] = -seconds_per_token * max(1, prefill_left(view, i))
        columns[i, dropped] = 0.0
    heapify(heap, n, dues)
    for left in range(n, 0, -1):  # sort in place, the earliest first: the latest goes to where the heap has just ended
        heap[left - 1] = pop(heap, left, dues)
    clock, kept = start, 0
    for k in range(n):  # those kept are a heap, the longest first, in the part of the array that has been read
        i = heap[k]
        push(heap, kept, i, sizes)
        kept += 1
        clock -= sizes[i]
        dues[i] = -dues[i]
        if clock > dues[i]:
            longest = pop(heap, kept, sizes)
            kept -= 1
            clock += sizes[longest]
            columns[longest, dropped] = 1.0
    return n - kept
