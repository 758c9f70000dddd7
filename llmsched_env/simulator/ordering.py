"""Heaps of requests by a key, and orders of service other than those of the queues.

A scheduler that uses them declares a heap and the columns of request memory that hold the keys: there is a key for
every request. Without a heap, or with fewer keys, they raise ValueError.
"""

from llmsched_env.compiled import compiled
from llmsched_env.simulator.primitives import ALL, chunk_above, is_pending
from llmsched_env.simulator.state import WAITING

_NO_HEAP = 'memory "heap" must be declared by a scheduler that orders requests: memory={"heap": ("by",)}'
_TOO_FEW = "keys must hold one number for each request, as a column of request memory does"


@compiled(inline=True)
def _before(keys, i, j):
    return keys[i] < keys[j] or (keys[i] == keys[j] and i < j)


@compiled
def push(heap, size, i, keys):
    """Add request `i` to the heap of `size` requests, unless it is full; the caller counts it."""
    if size < 0 or size >= len(heap) or i < 0 or i >= len(keys):
        return
    k = size
    while k > 0 and _before(keys, i, heap[(k - 1) // 2]):
        heap[k] = heap[(k - 1) // 2]
        k = (k - 1) // 2
    heap[k] = i


@compiled
def pop(heap, size, keys):
    """Remove and return the first of `size` > 0 requests, -1 where there is none; the caller counts it."""
    if size <= 0 or size > len(heap):
        return -1
    first = heap[0]
    heap[0] = heap[size - 1]
    _sift_down(heap, size - 1, 0, keys)
    return first


@compiled
def heapify(heap, size, keys):
    """Make a heap of the first `size` entries."""
    size = min(size, len(heap))
    for k in range(size // 2 - 1, -1, -1):
        _sift_down(heap, size, k, keys)


@compiled
def _sift_down(heap, size, k, keys):
    i = heap[k]
    while 2 * k + 1 < size:
        child = 2 * k + 1
        if child + 1 < size and _before(keys, heap[child + 1], heap[child]):
            child += 1
        if _before(keys, i, heap[child]):
            break
        heap[k] = heap[child]
        k = child
    heap[k] = i


@compiled(inline=True)
def _check_heap(view, keys):
    if len(view.mem.heap) < len(view.running) + len(view.waiting):
        raise ValueError(_NO_HEAP)
    if len(keys) < len(view.req.phase):
        raise ValueError(_TOO_FEW)


@compiled(inline=True)
def heap_of_waiting(view, keys):
    """Make a heap by `keys` (f8 by request) of all waiting requests in `view.mem.heap`; returns how many there are."""
    _check_heap(view, keys)
    heap, size = view.mem.heap, len(view.waiting)
    for k in range(size):
        heap[k] = view.waiting[k]
    heapify(heap, size, keys)
    return size


@compiled(inline=True)
def heap_of_present(view, keys):
    """As `heap_of_waiting`, of running and waiting requests."""
    _check_heap(view, keys)
    heap, size = view.mem.heap, len(view.running)
    for k in range(size):
        heap[k] = view.running[k]
    for i in view.waiting:
        heap[size] = i
        size += 1
    heapify(heap, size, keys)
    return size


@compiled
def heap_of_prompts(view, keys):
    """As `heap_of_waiting`, of running requests with prefill to do and waiting ones."""
    _check_heap(view, keys)
    heap, size = view.mem.heap, 0
    for i in view.running:
        if is_pending(view, i):
            heap[size] = i
            size += 1
    for i in view.waiting:
        if view.req.phase[i] == WAITING:
            heap[size] = i
            size += 1
    heapify(heap, size, keys)
    return size


@compiled(inline=True)
def pop_least(view, keys, size):
    """Remove and return the request with the least key, of equals the one of least number; the caller counts it.

    -1 from an empty heap.
    """
    if len(keys) < len(view.req.phase):
        raise ValueError(_TOO_FEW)
    return pop(view.mem.heap, size, keys)


@compiled
def chunks_by_key(view, keys, watermark):
    """Prefill waiting prompts, least key first, until one finds no room or would leave less than `watermark` of it."""
    left = heap_of_waiting(view, keys)
    while left > 0 and chunk_above(view, pop_least(view, keys, left), ALL, watermark) > 0:
        left -= 1


@compiled
def drop_late(view, start, due, size, dropped):
    """Mark the prompts, begun or waiting, outside a largest set that meets its due times; returns how many those are.

    One is taken to be prefilled after the other, from time `start` (s) on. In order of their due times, whenever one
    would be late the longest so far is dropped: no other choice lets more be on time. Needs a heap.

    Args:
        view: the view.
        start: when prefill of the first one begins.
        due: f8[n], times in s by which prefill must be done.
        size: f8[n], seconds of prefill; left as negative numbers.
        dropped: f8[n], written: 1 for what is left out, else 0.
    """
    for array in (due, size, dropped):
        _check_heap(view, array)
    heap, n, hopeless = view.mem.heap, 0, 0
    for group in (view.running, view.waiting):
        for i in group:
            if view.req.phase[i] == WAITING or is_pending(view, i):
                if start + size[i] > due[i]:  # not even if it were the first
                    dropped[i] = 1.0
                    hopeless += 1
                else:
                    dropped[i] = 0.0
                    heap[n] = i
                    n += 1
                size[i] = -size[i]
    heapify(heap, n, due)
    for left in range(n, 0, -1):  # sort in place, the latest first: the earliest goes to where the heap has just ended
        heap[left - 1] = pop(heap, left, due)
    for k in range(n // 2):
        heap[k], heap[n - 1 - k] = heap[n - 1 - k], heap[k]
    clock, kept = start, 0
    for k in range(n):  # those kept are a heap, the longest first, in the part of the array that has been read
        i = heap[k]
        push(heap, kept, i, size)
        kept += 1
        clock -= size[i]
        if clock > due[i]:
            longest = pop(heap, kept, size)
            kept -= 1
            clock += size[longest]
            dropped[longest] = 1.0
    return hopeless + n - kept
