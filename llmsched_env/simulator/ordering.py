"""Orders of service other than those of the queues: heaps of requests by keys in a column of `view.mem.request`.

A scheduler that uses them declares a heap and that column.
"""

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import heapify, pop
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
