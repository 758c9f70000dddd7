"""The primitives that schedulers compose a batch from.

`take` is the only way into a batch, and it refuses what the model of arXiv 2504.07347 forbids: (6a) prefill before
decode, (6b) tokens in order, (6c) one decode token per request and batch, (6d) the token budget; also the batch-size
limit, the admission limit and a lack of KV blocks. Whatever a scheduler does, its batch is feasible.

All primitives check the numbers they are given. A number that is none of a request at this engine (-1, say) is refused:
it has nothing to prefill, is not taken, preempted or rejected, and there is no memory for it.
"""

import numpy as np

from llmsched_env.compiled import compiled
from llmsched_env.simulator.kv_cache import (
    blocks_missing,
    blocks_of,
    bring_in,
    cached_tokens,
    free_blocks,
    give_blocks,
    put_back,
    swap_out,
    trim_blocks,
)
from llmsched_env.simulator.numbers import exists, may_be_here
from llmsched_env.simulator.state import EVICTED, LAST_TOKEN, PREEMPTED, REJECTED, RUNNING, UNLIMITED, WAITING

ALL = UNLIMITED  # as many tokens as there are


@compiled(inline=True)
def is_decoding(view, i):
    """Whether request `i` runs and has its prompt behind it."""
    return exists(view, i) and view.req.phase[i] == RUNNING and view.req.computed[i] >= view.req.prefill_tokens[i]


@compiled(inline=True)
def prefill_left(view, i):
    """Tokens that request `i` must still compute before its next decode, those in this batch not counted."""
    if not exists(view, i):
        return 0
    return max(0, view.req.prefill_tokens[i] - view.req.computed[i] - view.req.scheduled[i] - cached_tokens(view, i))


@compiled(inline=True)
def is_pending(view, i):
    """Whether running request `i` still has prefill to do."""
    return prefill_left(view, i) > 0 and view.req.phase[i] == RUNNING


@compiled(inline=True)
def usable(view, i):
    """Tokens that request `i` could still use in this batch: the prefill left, or the one of a decode."""
    if not exists(view, i):
        return 0
    left = prefill_left(view, i)
    return left if left > 0 or view.req.scheduled[i] > 0 else 1


@compiled(inline=True)
def tokens_left(view):
    """Tokens that the batch can still take."""
    return view.batch.counts.token_limit - view.batch.counts.tokens


@compiled(inline=True)
def seats_left(view):
    """Further requests that the batch can still take."""
    return view.batch.counts.seq_limit - view.batch.counts.num_seqs


@compiled
def lower_token_limit(view, tokens):
    """Limit this batch to `tokens`; never raises the limit."""
    view.batch.counts.token_limit = min(view.batch.counts.token_limit, max(0, tokens))


@compiled(inline=True)
def take(view, i, n):
    """Put up to `n` tokens of request `i` into the batch; returns how many the constraints let in (0: none)."""
    if not may_be_here(view, i) or not n >= 1:  # nor is it nan
        return 0
    req, counts = view.req, view.batch.counts
    phase, computed, scheduled = req.phase[i], req.computed[i], req.scheduled[i]
    if phase != RUNNING and phase != WAITING:
        return 0
    prefilling = computed < req.prefill_tokens[i]
    left = (req.prefill_tokens[i] - computed - cached_tokens(view, i) if prefilling else 1) - scheduled
    n = int(min(n, left, counts.token_limit - counts.tokens))
    if n <= 0:
        return 0
    if scheduled == 0:
        if counts.num_seqs >= counts.seq_limit:
            return 0
        if phase == WAITING and counts.admitted >= counts.admit_limit:
            return 0
    blocks = blocks_missing(view, i, n)
    if blocks > view.kv.free:
        return 0
    if scheduled == 0:
        if phase == WAITING:
            bring_in(view, i)
            blocks = blocks_of(view, req.computed[i] + n) - req.kv_blocks[i]
        _open_entry(view, i)
    if blocks > 0:
        give_blocks(view, i, blocks)
    _count_tokens(view, i, n)
    return n


@compiled(inline=True)
def _open_entry(view, i):
    counts = view.batch.counts
    view.batch.requests[counts.num_seqs] = i
    counts.num_seqs += 1
    if view.req.phase[i] == WAITING:
        counts.admitted += 1
    if view.req.computed[i] < view.req.prefill_tokens[i]:
        counts.prefill_context_tokens += view.req.computed[i]
    else:
        counts.decode_kv_tokens += view.req.computed[i]


@compiled(inline=True)
def _count_tokens(view, i, n):
    req, counts = view.req, view.batch.counts
    if req.computed[i] < req.prefill_tokens[i]:
        counts.prefill_tokens += n
        counts.prefill_attn_pairs += n * (req.computed[i] + req.scheduled[i]) + n * (n + 1) // 2
    else:
        counts.decode_tokens += n
    counts.tokens += n
    req.scheduled[i] += n


@compiled
def untake(view, i):
    """Take request `i` out of the batch again, with all its tokens and the blocks it was given for them."""
    if not may_be_here(view, i):
        return
    req, counts, batch = view.req, view.batch.counts, view.batch
    n, computed = req.scheduled[i], req.computed[i]
    if n == 0:
        return
    req.scheduled[i] = 0
    counts.tokens -= n
    if computed < req.prefill_tokens[i]:
        counts.prefill_tokens -= n
        counts.prefill_attn_pairs -= n * computed + n * (n + 1) // 2
        counts.prefill_context_tokens -= computed
    else:
        counts.decode_tokens -= n
        counts.decode_kv_tokens -= computed
    if req.phase[i] == WAITING:
        counts.admitted -= 1
        put_back(view, i)
    else:
        trim_blocks(view, i)
    counts.num_seqs -= 1
    place = 0
    while batch.requests[place] != i:
        place += 1
    for k in range(place, counts.num_seqs):
        batch.requests[k] = batch.requests[k + 1]


@compiled(inline=True)
def holds_seat(view, i):
    """Whether request `i` is among the running ones, even if nothing of it is left to schedule."""
    return exists(view, i) and (view.req.phase[i] == RUNNING or view.req.phase[i] == LAST_TOKEN)


@compiled(inline=True)
def preempt(view, i):
    """Push running request `i` back to the front of the queue. Returns whether `i` was running.

    Its KV cache moves to the host if the engine swaps and there is room, else it is lost and will be computed again.
    It cannot be taken again in this batch.
    """
    return _push_out(view, i, PREEMPTED)


@compiled(inline=True)
def evict(view, i):
    """As `preempt`, but request `i` goes to the back of the queue."""
    return _push_out(view, i, EVICTED)


@compiled
def _push_out(view, i, phase):
    if not may_be_here(view, i) or not holds_seat(view, i):
        return False
    untake(view, i)
    if not swap_out(view, i):
        free_blocks(view.req, view.prefixes, i)
    view.req.phase[i] = phase
    view.req.preemptions[i] += 1
    view.batch.counts.preemptions += 1
    return True


@compiled(inline=True)
def again_if_preempted(view):
    """What `compose` returns to be asked again at once if all it did was to preempt, else to wait for an arrival."""
    return view.clock if view.batch.counts.num_seqs == 0 and view.batch.counts.preemptions > 0 else np.inf


@compiled
def reject(view, i):
    """Turn waiting request `i` away for good. Returns whether `i` was waiting."""
    if not may_be_here(view, i) or view.req.phase[i] != WAITING:
        return False
    untake(view, i)
    view.req.phase[i] = REJECTED
    view.batch.counts.rejections += 1
    return True


@compiled
def make_room(view, i, n):
    """Find KV blocks for `n` more tokens of running request `i` at the cost of the latest admitted requests.

    Those that this very batch admits leave it again; then running ones are preempted. False if `i` itself had to go, or
    does not run.
    """
    if not may_be_here(view, i):
        return False
    entry = view.batch.counts.num_seqs - 1
    while entry >= 0 and blocks_missing(view, i, n) > view.kv.free:
        if view.req.phase[view.batch.requests[entry]] == WAITING:
            untake(view, view.batch.requests[entry])
        entry -= 1
    k = len(view.running) - 1
    while blocks_missing(view, i, n) > view.kv.free:
        while k >= 0 and not holds_seat(view, view.running[k]):
            k -= 1
        if k < 0:
            return False
        preempt(view, view.running[k])
        if view.running[k] == i:
            return False
    return True


@compiled
def reserve(view, i, tokens):
    """Set memory for `tokens` tokens aside for request `i` of the batch; whether it is in it and there is so much."""
    if not may_be_here(view, i) or view.req.scheduled[i] == 0:
        return False
    missing = blocks_of(view, tokens) - view.req.kv_blocks[i]
    if missing > view.kv.free:
        return False
    if missing > 0:
        give_blocks(view, i, missing)
    view.req.reserved[i] = view.req.kv_blocks[i]
    return True


@compiled(inline=True)
def watermark_blocks(view, share):
    """KV blocks that are kept free when a request is admitted, as a share of all; none for the first to run."""
    return int(share * view.kv.total) if len(view.running) + view.batch.counts.admitted > 0 else 0


@compiled(inline=True)
def memory_to_start(view, i, watermark):
    """Whether waiting request `i` may start: KV blocks for all it has to prefill, and the watermark (share) beyond.

    Never in a batch that preempts: it would take what the preempted one needs to come back.
    """
    if not exists(view, i) or view.batch.counts.preemptions > 0:
        return False
    return blocks_missing(view, i, usable(view, i)) + watermark_blocks(view, watermark) <= view.kv.free


@compiled(inline=True)
def memory_for_prompt(view, i):
    """`memory_to_start` without a watermark."""
    return memory_to_start(view, i, 0.0)


@compiled
def prompt_pending(view):
    """Whether a prompt waits for which there is memory."""
    return len(view.waiting) > 0 and memory_for_prompt(view, view.waiting[0])


@compiled
def decodes(view, order):
    """One token for each decoding request of `order` while there is room; lack of KV preempts the latest admitted."""
    k = 0
    while k < len(order) and tokens_left(view) > 0 and seats_left(view) > 0:
        k = decode_run(view, order, k, False)
        if k < len(order) and tokens_left(view) > 0 and seats_left(view) > 0:
            i = order[k]
            if take(view, i, 1) == 0 and make_room(view, i, 1):
                take(view, i, 1)
            k += 1


@compiled(inline=True)
def decode_run(view, order, k, decodes_only):
    """`take` one token for each decoding request from order[k] on, up to the first that needs a new KV block.

    What `take` checks and counts by request is done here once for the run: this is where most of the time is spent.
    Requests with prefill left are passed over, or with `decodes_only` end the run. Returns where it stopped.
    """
    req, batch = view.req, view.batch
    first = batch.counts.num_seqs
    room = first + min(tokens_left(view), seats_left(view))
    last, context, block_size = first, 0, view.kv.block_size
    k = max(0, k)
    while k < len(order) and last < room:
        i = order[k]
        if may_be_here(view, i) and req.phase[i] == RUNNING:
            if req.computed[i] < req.prefill_tokens[i]:
                if decodes_only:
                    break
            elif req.scheduled[i] == 0:
                if req.computed[i] >= req.kv_blocks[i] * block_size:
                    break
                batch.requests[last] = i
                req.scheduled[i] = 1
                context += req.computed[i]
                last += 1
        k += 1
    batch.counts.num_seqs = last
    batch.counts.tokens += last - first
    batch.counts.decode_tokens += last - first
    batch.counts.decode_kv_tokens += context
    return k


@compiled(inline=True)
def chunk(view, i, limit):
    """Prefill up to `limit` tokens of request `i`'s prompt; returns how many found room.

    A waiting request that was swapped out while it decoded comes back with a decode token.
    """
    return chunk_above(view, i, limit, 0.0)


@compiled(inline=True)
def chunk_above(view, i, limit, watermark):
    """As `chunk`, where a waiting request must leave the share `watermark` of all KV blocks free."""
    n = min(_chunk_wanted(view, i), limit, tokens_left(view))
    if n <= 0 or not may_be_here(view, i) or (view.req.scheduled[i] == 0 and seats_left(view) <= 0):
        return 0
    if view.req.phase[i] == WAITING and not memory_to_start(view, i, watermark):
        return 0
    if view.req.phase[i] == RUNNING and blocks_missing(view, i, n) > view.kv.free and not make_room(view, i, n):
        return 0
    return take(view, i, n)


@compiled(inline=True)
def chunks(view, order, limit):
    """Prefill the prompts of `order` one after another, each by up to `limit` tokens, until one finds no room."""
    chunks_above(view, order, limit, 0.0)


@compiled
def chunks_above(view, order, limit, watermark):
    """As `chunks`, where waiting requests must leave the share `watermark` of all KV blocks free."""
    for k in range(len(order)):
        wanted = _chunk_wanted(view, order[k])
        if wanted > 0 and chunk_above(view, order[k], limit, watermark) == 0:
            break


@compiled(inline=True)
def _chunk_wanted(view, i):
    if not exists(view, i):
        return 0
    return usable(view, i) if view.req.phase[i] == WAITING else prefill_left(view, i)


@compiled
def whole_prompts(view):
    """Prefill waiting prompts whole, oldest first, until one does not fit; returns how many did.

    What comes back from the host to decode does so in a batch without them.
    """
    admitted, first_decodes = 0, False
    for k in range(len(view.waiting)):
        i = view.waiting[k]
        n, swapped_decode = usable(view, i), view.req.computed[i] >= view.req.prefill_tokens[i]
        if admitted == 0:
            first_decodes = swapped_decode
        if swapped_decode != first_decodes or n > tokens_left(view) or not memory_for_prompt(view, i):
            break
        if take(view, i, n) == 0:
            break
        admitted += 1
    return admitted
