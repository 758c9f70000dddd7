"""The most prompts whose prefill can still be done in time (Moore 1968, the algorithm of Hodgson)."""

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import pop, push
from llmsched_env.simulator.ordering import heap_of_prompts


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
    heap, columns = view.mem.heap, view.mem.request
    n = heap_of_prompts(view, due)
    for left in range(n, 0, -1):  # sort in place, the latest first: the earliest goes to where the heap has just ended
        i = pop(heap, left, columns[:, due])
        heap[left - 1] = i
        columns[i, size] = -columns[i, size]
        columns[i, dropped] = 0.0
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
    return n - kept
