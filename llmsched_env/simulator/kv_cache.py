"""The KV cache: what a request needs, what it gives back, and blocks that outlive their request (prefix caching).

A full block is known by its content: the tokens from the start up to its end. Content is named by (owner, place): the
earliest request along the `parent` links in which these tokens stand, and which block of that request they end. Blocks
of the same content are one, held by all requests that use it. Blocks that no request holds stay reusable until their
memory is needed; eviction is LRU, the end of a sequence before its beginning, as in vLLM. So if a block is cached, all
before it are, and the length of a cached prefix is found by bisection.
"""

from llmsched_env.compiled import compiled
from llmsched_env.simulator.numbers import exists
from llmsched_env.simulator.state import UNLIMITED, WAITING


@compiled(inline=True)
def blocks_of(view, tokens):
    """KV blocks that `tokens` tokens of one request take."""
    return (tokens + view.kv.block_size - 1) // view.kv.block_size


@compiled(inline=True)
def may_reuse(view, i):
    """Whether request `i` stands to start with what the prefix cache holds of it."""
    return (
        view.kv.prefix_caching == 1
        and exists(view, i)
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
    """Free blocks used up by `n` tokens of request `i` beyond what is cached; cached ones without a holder count."""
    size = prefixes.kv.block_size
    cached = prefix_blocks(prefixes, i, (known_tokens - 1) // size, IDLE_OR_HELD)
    return cached + (n + size - 1) // size - prefix_blocks(prefixes, i, cached, HELD)


@compiled(inline=True)
def cached_tokens(view, i):
    """Tokens that request `i` would find in the prefix cache if it were admitted now; 0 once it is."""
    return cached_blocks(view, i) * view.kv.block_size if may_reuse(view, i) else 0


@compiled(inline=True)
def blocks_missing(view, i, n):
    """Free KV blocks that `n` more tokens of request `i` in this batch would use up; more than any of no request."""
    if not exists(view, i):
        return 2 * UNLIMITED
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


IDLE_OR_HELD, HELD = 0, 1  # least `holders` of the blocks that are looked for


@compiled
def empty_cache(slots, entries):
    """Forget everything."""
    for k in range(len(slots)):
        slots[k] = 0
    for e in range(len(entries)):
        entries[e].newer = e + 1 if e + 1 < len(entries) else 0
    entries[0].owner = entries[0].newer
    entries[0].older = 0
    entries[0].newer = 0


@compiled
def move_cache(old_slots, old_entries, slots, entries, shift):
    """Fill an empty, no smaller cache with another one's content; `shift` is added to the numbers of all requests."""
    for e in range(len(old_entries)):
        entries[e] = old_entries[e]
    for e in range(len(old_entries), len(entries)):
        entries[e].newer = entries[0].owner
        entries[0].owner = e
    for k in range(len(old_slots)):
        e = old_slots[k]
        if e > 0:
            entries[e].owner += shift
            _file(slots, entries, e)


@compiled
def prefix_blocks(prefixes, i, most, least_refs):
    """How many leading blocks of request `i`, at most `most`, are cached with at least `least_refs` holders."""
    owner, high = i, most
    while high > 0:
        low = _own_from(prefixes, owner, high)
        if low < high and _cached(prefixes, owner, low, least_refs):
            low += 1
            while low < high:
                middle = (low + high) // 2
                if _cached(prefixes, owner, middle, least_refs):
                    low = middle + 1
                else:
                    high = middle
            return low
        high = low
        owner = prefixes.parent[owner]
    return 0


@compiled
def hold_prefix(prefixes, i, blocks):
    """Give request `i` the first `blocks` blocks, all of them cached."""
    owner, high = i, blocks
    while high > 0:
        low = _own_from(prefixes, owner, high)
        for place in range(high - 1, low - 1, -1):
            _hold(prefixes, _find(prefixes, owner, place))
        high = low
        owner = prefixes.parent[owner]


@compiled
def drop_prefix(prefixes, i, blocks):
    """Request `i` gives up its first `blocks` blocks, last one first; they stay cached."""
    owner, high = i, blocks
    while high > 0:
        low = _own_from(prefixes, owner, high)
        for place in range(high - 1, low - 1, -1):
            e = _find(prefixes, owner, place)
            prefixes.entries[e].holders -= 1
            if prefixes.entries[e].holders == 0:
                _append(prefixes.entries, e)
                prefixes.kv.cached += 1
                prefixes.kv.free += 1
        high = low
        owner = prefixes.parent[owner]


@compiled
def publish(prefixes, i, first, end):
    """Request `i` has filled its blocks first, ..., end - 1: others may use them from the next batch on.

    If the same content is cached already, request `i` joins its holders and frees its copy.
    """
    owner, high = i, end
    while high > first:
        low = max(first, _own_from(prefixes, owner, high))
        for place in range(high - 1, low - 1, -1):
            at = _slot_of(prefixes, owner, place)
            if prefixes.slots[at] > 0:
                _hold(prefixes, prefixes.slots[at])
                prefixes.kv.free += 1
            else:
                prefixes.slots[at] = _new_entry(prefixes.entries, owner, place)
        high = low
        owner = prefixes.parent[owner]


@compiled
def allocate(prefixes, n):
    """Take `n` free blocks; where only cached ones are left, the least recently used are evicted."""
    prefixes.kv.free -= n
    if prefixes.kv.prefix_caching == 1:
        while prefixes.kv.cached > prefixes.kv.free:
            _forget_oldest(prefixes)
            prefixes.kv.cached -= 1


@compiled(inline=True)
def _own_from(prefixes, owner, high):
    """The first block below `high` whose tokens stand in no ancestor of `owner`."""
    if prefixes.parent[owner] < 0:
        return 0
    return min(high, prefixes.shared_tokens[owner] // prefixes.kv.block_size)


@compiled(inline=True)
def _first_slot(slots, owner, place):
    return (owner * 982451653 + place * 7919) & (len(slots) - 1)


@compiled(inline=True)
def _slot_of(prefixes, owner, place):
    """Where a block is filed in the hash table, or else would be."""
    slots, entries = prefixes.slots, prefixes.entries
    at = _first_slot(slots, owner, place)
    while slots[at] > 0 and not (entries[slots[at]].owner == owner and entries[slots[at]].place == place):
        at = (at + 1) & (len(slots) - 1)
    return at


@compiled(inline=True)
def _find(prefixes, owner, place):
    """The entry of a block, 0 if it is not cached."""
    return prefixes.slots[_slot_of(prefixes, owner, place)]


@compiled
def _cached(prefixes, owner, place, least_refs):
    e = _find(prefixes, owner, place)
    return e > 0 and prefixes.entries[e].holders >= least_refs


@compiled(inline=True)
def _hold(prefixes, e):
    entries = prefixes.entries
    if entries[e].holders == 0:
        _unlink(entries, e)
        prefixes.kv.cached -= 1
        prefixes.kv.free -= 1
    entries[e].holders += 1


@compiled(inline=True)
def _new_entry(entries, owner, place):
    """An entry for a block that one request holds; the caller files it."""
    e = entries[0].owner
    entries[0].owner = entries[e].newer
    entries[e].owner = owner
    entries[e].place = place
    entries[e].holders = 1
    return e


@compiled
def _file(slots, entries, e):
    """Put entry `e` into the hash table."""
    at = _first_slot(slots, entries[e].owner, entries[e].place)
    while slots[at] > 0:
        at = (at + 1) & (len(slots) - 1)
    slots[at] = e


@compiled
def _forget_oldest(prefixes):
    slots, entries = prefixes.slots, prefixes.entries
    e = entries[0].newer
    _unlink(entries, e)
    hole = _first_slot(slots, entries[e].owner, entries[e].place)
    while slots[hole] != e:
        hole = (hole + 1) & (len(slots) - 1)
    _close_hole(slots, entries, hole)
    entries[e].newer = entries[0].owner
    entries[0].owner = e


@compiled(inline=True)
def _close_hole(slots, entries, hole):
    """Empty slot `hole` and move up what was displaced by it (Knuth, TAOCP 3, 6.4, Algorithm R)."""
    mask = len(slots) - 1
    at = hole
    slots[hole] = 0
    while True:
        at = (at + 1) & mask
        e = slots[at]
        if e == 0:
            return
        home = _first_slot(slots, entries[e].owner, entries[e].place)
        if ((at - home) & mask) >= ((at - hole) & mask):
            slots[hole] = e
            slots[at] = 0
            hole = at


@compiled(inline=True)
def _append(entries, e):
    """Put entry `e` behind all idle ones as the newest."""
    newest = entries[0].older
    entries[e].older = newest
    entries[e].newer = 0
    entries[newest].newer = e
    entries[0].older = e


@compiled(inline=True)
def _unlink(entries, e):
    older, newer = entries[e].older, entries[e].newer
    entries[older].newer = newer
    entries[newer].older = older
