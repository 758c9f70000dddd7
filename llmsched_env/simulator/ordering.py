"""Orders of service other than those of the queues: heaps of requests by a key, and the most prompts on time.

A scheduler that uses them declares a heap and the columns of request memory that hold the keys.
"""

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import heapify, pop, push
from llmsched_env.simulator.primitives import ALL, chunk_above, is_pending
from llmsched_env.simulator.state import WAITING


@compiled(inline=True)
def heap_of_waiting(view, column):
    """Make a heap of all waiting requests in `view.mem.heap`; returns how many there are."""
    heap, size = view.mem.heap, len(view.waiting)
    for k in range(size):
        heap[k] = view.waiting[k]
    heapify(heap, size, view.mem.request[:, column])
    return size


@compiled(inline=True)
def heap_of_present(view, column):
    """As `heap_of_waiting`, of running and waiting requests."""
    heap, size = view.mem.heap, len(view.running)
    for k in range(size):
        heap[k] = view.running[k]
    for i in view.waiting:
        heap[size] = i
        size += 1
    heapify(heap, size, view.mem.request[:, column])
    return size


@compiled
def heap_of_prompts(view, column):
    """As `heap_of_waiting`, of running requests with prefill to do and waiting ones."""
    heap, size = view.mem.heap, 0
    for i in view.running:
        if is_pending(view, i):
            heap[size] = i
            size += 1
    for i in view.waiting:
        if view.req.phase[i] == WAITING:
            heap[size] = i
            size += 1
    heapify(heap, size, view.mem.request[:, column])
    return size


@compiled(inline=True)
def pop_least(view, column, size):
    """Remove and return the request with the least key, of equals the one of least number; the caller counts it."""
    return pop(view.mem.heap, size, view.mem.request[:, column])


@compiled
def chunks_by_key(view, column, watermark):
    """Prefill waiting prompts, least key first, until one finds no room or would leave less than `watermark` of it."""
    left = heap_of_waiting(view, column)
    while left > 0 and chunk_above(view, pop_least(view, column, left), ALL, watermark) > 0:
        left -= 1


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
