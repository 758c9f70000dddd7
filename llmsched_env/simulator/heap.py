"""A binary heap of requests, least key first, ties by request number; the keys stand in a column by request."""

from llmsched_env.simulator.compiled import compiled


@compiled(inline=True)
def _before(keys, i, j):
    return keys[i] < keys[j] or (keys[i] == keys[j] and i < j)


@compiled
def push(heap, size, i, keys):
    """Add request `i` to the heap of `size` requests; the caller counts it."""
    k = size
    while k > 0 and _before(keys, i, heap[(k - 1) // 2]):
        heap[k] = heap[(k - 1) // 2]
        k = (k - 1) // 2
    heap[k] = i


@compiled
def pop(heap, size, keys):
    """Remove and return the first of `size` > 0 requests; the caller counts it."""
    first = heap[0]
    heap[0] = heap[size - 1]
    _sift_down(heap, size - 1, 0, keys)
    return first


@compiled
def heapify(heap, size, keys):
    """Make a heap of the first `size` entries."""
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
