"""The most prompts whose prefill can still be done in time (Moore 1968, the algorithm of Hodgson)."""

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import heapify, pop, push
from llmsched_env.simulator.primitives import is_pending
from llmsched_env.simulator.state import WAITING


@compiled
def drop_late(view, start, due, size, dropped):
    """Mark the prompts, begun or waiting, outside a largest set that meets its due times; returns how many those are.

    One is taken to be prefilled after the other, from time `start` (s) on. In order of their due times, whenever one
    would be late the longest so far is dropped: no other choice lets more be on time. Needs a heap.

    Args:
        view: the view.
        start: when prefill of the first one begins.
        due: column of request memory that holds due times in s, by when prefill must be done,
        size: that holds seconds of prefill, left there as negative numbers,
        dropped: and for the mark: 1 or 0.
    """
    heap, columns, n, hopeless = view.mem.heap, view.mem.request, 0, 0
    for group in (view.running, view.waiting):
        for i in group:
            if view.req.phase[i] == WAITING or is_pending(view, i):
                if start + columns[i, size] > columns[i, due]:  # not even if it were the first
                    columns[i, dropped] = 1.0
                    hopeless += 1
                else:
                    columns[i, dropped] = 0.0
                    heap[n] = i
                    n += 1
                columns[i, size] = -columns[i, size]
    heapify(heap, n, columns[:, due])
    for left in range(n, 0, -1):  # sort in place, the latest first: the earliest goes to where the heap has just ended
        heap[left - 1] = pop(heap, left, columns[:, due])
    for k in range(n // 2):
        heap[k], heap[n - 1 - k] = heap[n - 1 - k], heap[k]
    clock, kept, sizes = start, 0, columns[:, size]
    for k in range(n):  # those kept are a heap, the longest first, in the part of the array that has been read
        i = heap[k]
        push(heap, kept, i, sizes)
        kept += 1
        clock -= sizes[i]
        if clock > columns[i, due]:
            longest = pop(heap, kept, sizes)
            kept -= 1
            clock += sizes[longest]
            columns[longest, dropped] = 1.0
    return hopeless + n - kept
