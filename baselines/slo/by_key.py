"""Prompts and decodes in order of a key, in a batch that keeps within a time.

A scheduler writes a number for every pending prompt to the column `key`, smaller going first, and calls
`prompts_by_key`. It declares a heap for that. Times are those of the engine's profile, see
`llmsched_env.simulator.step_time`.
"""

from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import request_memory
from llmsched_env.simulator.ordering import heap_of_prompts, heapify, pop
from llmsched_env.simulator.primitives import (
    chunk_above,
    is_decoding,
    make_room,
    prefill_left,
    seats_left,
    take,
    tokens_left,
)
from llmsched_env.simulator.state import WAITING
from llmsched_env.simulator.step_time import chunk_within

KEY = ("key",)
"""The first column of request memory of all schedulers that use this module."""

BEHIND = 1e9  # s, added to keys of requests that come after all others; keys in seconds stay exact to 1e-7 s

own = request_memory(KEY)


@compiled
def prompts_by_key(view, seconds, least, spare):
    """Prefill prompts, whether begun or waiting, least key first, while the batch lasts no longer than `seconds`.

    Up to `least` prefill tokens enter the batch whatever time they take. Waiting requests with keys from `BEHIND` on
    must leave the share `spare` of all KV blocks free for the others. If a waiting request finds no memory, those
    behind it are not admitted either. A request that returns from the host to decode counts as a prompt of one token.
    """
    heap, key, admitting = view.mem.heap, own(view).key, True
    left = heap_of_prompts(view, key)
    while left > 0 and tokens_left(view) > 0:
        i = pop(heap, left, key)
        left -= 1
        waits = view.req.phase[i] == WAITING
        if waits and not admitting:
            continue
        n = max(chunk_within(view, i, tokens_left(view), seconds), least - view.batch.counts.prefill_tokens)
        if waits and prefill_left(view, i) == 0:
            n = 1
        if n <= 0:
            break
        spared = spare if key[i] >= BEHIND else 0.0
        taken = chunk_above(view, i, n, spared)
        if taken == 0 and waits:
            admitting = False
        while taken > 0 and not waits:  # room for it may have been made by taking tokens of others out of the batch
            taken = chunk_above(view, i, chunk_within(view, i, tokens_left(view), seconds), spared)


@compiled
def gather_decodes(view):
    """Make a heap by key of the decoding requests that are not in the batch yet; returns how many there are."""
    heap, size = view.mem.heap, 0
    for i in view.running:
        if is_decoding(view, i) and view.req.scheduled[i] == 0:
            heap[size] = i
            size += 1
    heapify(heap, size, own(view).key)
    return size


@compiled
def decode_one(view, i):
    """One token for request `i` if it decodes; lack of KV memory preempts the latest admitted, as in `decodes`."""
    if is_decoding(view, i) and tokens_left(view) > 0 and seats_left(view) > 0 and make_room(view, i, 1):
        take(view, i, 1)
