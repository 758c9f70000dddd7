"""KV memory of a batch under construction: what a request needs, who must go for it, and what it gives back."""

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.prefix_cache import (
    HELD,
    IDLE_OR_HELD,
    allocate,
    drop_prefix,
    hold_prefix,
    prefix_blocks,
)
from llmsched_env.simulator.state import WAITING


@compiled(inline=True)
def blocks_of(view, tokens):
    """KV blocks that so many tokens of one request take."""
    return (tokens + view.kv.block_size - 1) // view.kv.block_size


@compiled(inline=True)
def may_reuse(view, i):
    """Whether request `i` stands to start with what the prefix cache holds of it."""
    return (
        view.kv.prefix_caching == 1
        and view.req.phase[i] == WAITING
        and view.req.scheduled[i] == 0
        and view.req.swapped[i] == 0
    )


@compiled(inline=True)
def cached_blocks(view, i):
    """Leading blocks of waiting request `i` in the prefix cache; its last token is always computed."""
    return prefix_blocks(view.prefixes, i, (view.req.prefill_tokens[i] - 1) // view.kv.block_size, IDLE_OR_HELD)


@compiled
def _blocks_to_start(prefixes, i, known_tokens, n):
    """Free blocks used up by `n` tokens of request `i` beyond what is cached; cached ones that nobody holds count."""
    size = prefixes.kv.block_size
    cached = prefix_blocks(prefixes, i, (known_tokens - 1) // size, IDLE_OR_HELD)
    return cached + (n + size - 1) // size - prefix_blocks(prefixes, i, cached, HELD)


@compiled(inline=True)
def cached_tokens(view, i):
    """Tokens that request `i` would find in the prefix cache if it were admitted now; 0 once it is."""
    return cached_blocks(view, i) * view.kv.block_size if may_reuse(view, i) else 0


@compiled(inline=True)
def blocks_missing(view, i, n):
    """Free KV blocks that `n` more tokens of request `i` in this batch would use up."""
    if may_reuse(view, i):
        return _blocks_to_start(view.prefixes, i, view.req.prefill_tokens[i], n)
    short = view.req.computed[i] + view.req.scheduled[i] + n - view.req.kv_blocks[i] * view.kv.block_size
    if short <= 0:
        return 0
    return (short + view.kv.block_size - 1) // view.kv.block_size


@compiled(inline=True)
def give_blocks(view, i, n):
    """Hand `n` free blocks to request `i`."""
    allocate(view.prefixes, n)
    view.req.kv_blocks[i] += n


@compiled
def bring_in(view, i):
    """Waiting request `i` enters the engine: what is cached of it, or its swapped-out tokens' space, becomes its own.

    Its swapped blocks still need `give_blocks`; the caller has seen that there is room.
    """
    req, counts = view.req, view.batch.counts
    if may_reuse(view, i):
        blocks = cached_blocks(view, i)
        if blocks > 0:
            hold_prefix(view.prefixes, i, blocks)
            req.kv_blocks[i] = blocks
            req.published[i] = blocks
            req.computed[i] = blocks * view.kv.block_size
            counts.prefix_hits += req.computed[i]
    elif req.swapped[i] > 0:
        counts.swapped += req.swapped[i]


@compiled
def put_back(view, i):
    """Undo `bring_in`: waiting request `i` does not enter after all."""
    req, counts = view.req, view.batch.counts
    if req.swapped[i] > 0:
        view.kv.free += req.kv_blocks[i]
        req.kv_blocks[i] = 0
        counts.swapped -= req.swapped[i]
    else:
        counts.prefix_hits -= req.computed[i]
        free_blocks(req, view.prefixes, i)
        req.computed[i] = 0
    req.reserved[i] = 0


@compiled
def trim_blocks(view, i):
    """Running request `i` returns the blocks that this batch has given it."""
    held = max(blocks_of(view, view.req.computed[i]), view.req.reserved[i])
    view.kv.free += view.req.kv_blocks[i] - held
    view.req.kv_blocks[i] = held


@compiled
def free_blocks(req, prefixes, i):
    """Request `i` returns all its blocks; full ones stay in the prefix cache."""
    kv = prefixes.kv
    kv.free += req.kv_blocks[i] - req.published[i]  # nobody can reuse these: they are taken first
    if req.published[i] > 0:
        drop_prefix(prefixes, i, req.published[i])
        req.published[i] = 0
    req.kv_blocks[i] = 0
    req.reserved[i] = 0


@compiled
def swap_out(view, i):
    """Move the blocks of request `i` to the host; whether there was room for them."""
    req, blocks = view.req, view.req.kv_blocks[i]
    if blocks == 0 or blocks > view.kv.swap_free:
        return False
    view.kv.swap_free -= blocks
    view.kv.free += blocks
    view.batch.counts.swapped += blocks
    req.swapped[i] = blocks
    req.kv_blocks[i] = 0
    req.reserved[i] = 0
    return True
