"""The primitives that schedulers compose a batch from.

`take` is the only way into a batch, and it refuses what the model of arXiv 2504.07347 forbids: (6a) prefill before
decode, (6b) tokens in order, (6c) one decode token per request and batch, (6d) the token budget; also the batch-size
limit, the admission limit and a lack of KV blocks. Whatever a scheduler does, its batch is feasible.
"""

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.state import (
    ADMIT_LIMIT,
    ADMITTED,
    DECODE_KV,
    DECODE_TOKENS,
    KV_BLOCK_SIZE,
    KV_FREE,
    NUM_SEQS,
    PREEMPTED,
    PREEMPTIONS,
    PREFILL_CONTEXT,
    PREFILL_PAIRS,
    PREFILL_TOKENS,
    REJECTED,
    REJECTIONS,
    RUNNING,
    SEQ_LIMIT,
    TOKEN_LIMIT,
    TOKENS,
    UNLIMITED,
    WAITING,
)

ALL = UNLIMITED  # as many tokens as there are


@compiled(inline=True)
def is_decoding(view, i):
    """Whether request `i` runs and has its prompt behind it."""
    return view.req.phase[i] == RUNNING and view.req.computed[i] >= view.req.prefill_tokens[i]


@compiled(inline=True)
def prefill_left(view, i):
    """Tokens that request `i` must still compute before its next decode, those in this batch not counted."""
    return max(0, view.req.prefill_tokens[i] - view.req.computed[i] - view.req.scheduled[i])


@compiled(inline=True)
def tokens_left(view):
    """Tokens that the batch can still take."""
    return view.batch.counts[TOKEN_LIMIT] - view.batch.counts[TOKENS]


@compiled(inline=True)
def seats_left(view):
    """Further requests that the batch can still take."""
    return view.batch.counts[SEQ_LIMIT] - view.batch.counts[NUM_SEQS]


@compiled
def lower_token_limit(view, tokens):
    """Limit this batch to `tokens`; never raises the limit."""
    view.batch.counts[TOKEN_LIMIT] = min(view.batch.counts[TOKEN_LIMIT], max(0, tokens))


@compiled(inline=True)
def blocks_missing(view, i, n):
    """KV blocks that request `i` would have to be given for `n` more tokens in this batch."""
    short = view.req.computed[i] + view.req.scheduled[i] + n - view.req.kv_blocks[i] * view.kv[KV_BLOCK_SIZE]
    if short <= 0:
        return 0
    return (short + view.kv[KV_BLOCK_SIZE] - 1) // view.kv[KV_BLOCK_SIZE]


@compiled(inline=True)
def take(view, i, n):
    """Put up to `n` tokens of request `i` into the batch; returns how many the constraints let in (0: none)."""
    req, counts = view.req, view.batch.counts
    phase, computed, scheduled = req.phase[i], req.computed[i], req.scheduled[i]
    if i < 0 or (phase != RUNNING and phase != WAITING):
        return 0
    prefilling = computed < req.prefill_tokens[i]
    left = (req.prefill_tokens[i] - computed if prefilling else 1) - scheduled
    n = min(n, left, counts[TOKEN_LIMIT] - counts[TOKENS])
    if n <= 0:
        return 0
    if scheduled == 0:
        if counts[NUM_SEQS] >= counts[SEQ_LIMIT]:
            return 0
        if phase == WAITING and counts[ADMITTED] >= counts[ADMIT_LIMIT]:
            return 0
    blocks = blocks_missing(view, i, n)
    if blocks > view.kv[KV_FREE]:
        return 0
    if blocks > 0:
        view.kv[KV_FREE] -= blocks
        req.kv_blocks[i] += blocks
    if scheduled == 0:
        _open_entry(view, i)
    _count_tokens(view, i, n)
    return n


@compiled(inline=True)
def _open_entry(view, i):
    counts = view.batch.counts
    view.batch.requests[counts[NUM_SEQS]] = i
    counts[NUM_SEQS] += 1
    if view.req.phase[i] == WAITING:
        counts[ADMITTED] += 1
    if view.req.computed[i] < view.req.prefill_tokens[i]:
        counts[PREFILL_CONTEXT] += view.req.computed[i]
    else:
        counts[DECODE_KV] += view.req.computed[i]


@compiled(inline=True)
def _count_tokens(view, i, n):
    req, counts = view.req, view.batch.counts
    if req.computed[i] < req.prefill_tokens[i]:
        counts[PREFILL_TOKENS] += n
        counts[PREFILL_PAIRS] += n * (req.computed[i] + req.scheduled[i]) + n * (n + 1) // 2
    else:
        counts[DECODE_TOKENS] += n
    counts[TOKENS] += n
    req.scheduled[i] += n


@compiled
def untake(view, i):
    """Take request `i` out of the batch again, with all its tokens and the blocks it was given for them."""
    req, counts, batch = view.req, view.batch.counts, view.batch
    n, computed = req.scheduled[i], req.computed[i]
    if n == 0:
        return
    held = (computed + view.kv[KV_BLOCK_SIZE] - 1) // view.kv[KV_BLOCK_SIZE]
    view.kv[KV_FREE] += req.kv_blocks[i] - held
    req.kv_blocks[i] = held
    req.scheduled[i] = 0
    counts[TOKENS] -= n
    if computed < req.prefill_tokens[i]:
        counts[PREFILL_TOKENS] -= n
        counts[PREFILL_PAIRS] -= n * computed + n * (n + 1) // 2
        counts[PREFILL_CONTEXT] -= computed
    else:
        counts[DECODE_TOKENS] -= n
        counts[DECODE_KV] -= computed
    if req.phase[i] == WAITING:
        counts[ADMITTED] -= 1
    counts[NUM_SEQS] -= 1
    place = 0
    while batch.requests[place] != i:
        place += 1
    for k in range(place, counts[NUM_SEQS]):
        batch.requests[k] = batch.requests[k + 1]


@compiled
def preempt(view, i):
    """Push running request `i` back to the front of the queue; it loses its KV cache and will recompute it.

    It cannot be taken again in this batch. Returns whether `i` was running.
    """
    if view.req.phase[i] != RUNNING:
        return False
    untake(view, i)
    view.kv[KV_FREE] += view.req.kv_blocks[i]
    view.req.kv_blocks[i] = 0
    view.req.phase[i] = PREEMPTED
    view.req.preemptions[i] += 1
    view.batch.counts[PREEMPTIONS] += 1
    return True


@compiled
def reject(view, i):
    """Turn waiting request `i` away for good. Returns whether `i` was waiting."""
    if view.req.phase[i] != WAITING:
        return False
    untake(view, i)
    view.req.phase[i] = REJECTED
    view.batch.counts[REJECTIONS] += 1
    return True


@compiled
def make_room(view, i, n):
    """Find KV blocks for `n` more tokens of running request `i` at the cost of the latest admitted requests.

    Those that this very batch admits leave it again; then running ones are preempted. False if `i` itself had to go.
    """
    entry = view.batch.counts[NUM_SEQS] - 1
    while entry >= 0 and blocks_missing(view, i, n) > view.kv[KV_FREE]:
        if view.req.phase[view.batch.requests[entry]] == WAITING:
            untake(view, view.batch.requests[entry])
        entry -= 1
    k = len(view.running) - 1
    while blocks_missing(view, i, n) > view.kv[KV_FREE]:
        while view.req.phase[view.running[k]] != RUNNING:
            k -= 1
        preempt(view, view.running[k])
        if view.running[k] == i:
            return False
    return True


@compiled
def memory_for_prompt(view, i):
    """Whether waiting request `i` may start: KV blocks for its whole prompt, and nothing preempted in this batch."""
    if view.batch.counts[PREEMPTIONS] > 0:
        return False
    return blocks_missing(view, i, prefill_left(view, i)) <= view.kv[KV_FREE]


@compiled
def prompt_pending(view):
    """Whether a prompt waits for which there is memory."""
    return len(view.waiting) > 0 and memory_for_prompt(view, view.waiting[0])


@compiled
def decodes(view, order):
    """One token for each decoding request of `order` while there is room; lack of KV preempts the latest admitted."""
    k = 0
    while k < len(order) and tokens_left(view) > 0 and seats_left(view) > 0:
        k = _decode_run(view, order, k)
        if k < len(order) and tokens_left(view) > 0 and seats_left(view) > 0:
            i = order[k]
            if take(view, i, 1) == 0 and make_room(view, i, 1):
                take(view, i, 1)
            k += 1


@compiled(inline=True)
def _decode_run(view, order, k):
    """`take` one token for each decoding request from order[k] on, up to the first that needs a new KV block.

    What `take` checks and counts by request is done here once for the run: this is where most of the time is spent.
    Returns where it stopped.
    """
    req, batch = view.req, view.batch
    first = batch.counts[NUM_SEQS]
    room = first + min(tokens_left(view), seats_left(view))
    last, context = first, 0
    while k < len(order) and last < room:
        i = order[k]
        if i >= 0 and is_decoding(view, i) and req.scheduled[i] == 0:
            if blocks_missing(view, i, 1) > 0:
                break
            batch.requests[last] = i
            req.scheduled[i] = 1
            context += req.computed[i]
            last += 1
        k += 1
    batch.counts[NUM_SEQS] = last
    batch.counts[TOKENS] += last - first
    batch.counts[DECODE_TOKENS] += last - first
    batch.counts[DECODE_KV] += context
    return k


@compiled
def chunk(view, i, limit):
    """Prefill up to `limit` tokens of request `i`'s prompt; returns how many found room."""
    n = min(prefill_left(view, i), limit, tokens_left(view))
    if n <= 0 or (view.req.scheduled[i] == 0 and seats_left(view) <= 0):
        return 0
    if view.req.phase[i] == WAITING and not memory_for_prompt(view, i):
        return 0
    if view.req.phase[i] == RUNNING and not make_room(view, i, n):
        return 0
    return take(view, i, n)


@compiled
def chunks(view, order, limit):
    """Prefill the prompts of `order` one after another, each by up to `limit` tokens, until one finds no room."""
    for k in range(len(order)):
        if prefill_left(view, order[k]) > 0 and chunk(view, order[k], limit) == 0:
            break


@compiled
def whole_prompts(view):
    """Prefill waiting prompts whole, oldest first, until one does not fit; returns how many did."""
    admitted = 0
    for k in range(len(view.waiting)):
        i = view.waiting[k]
        n = prefill_left(view, i)
        if n > tokens_left(view) or not memory_for_prompt(view, i) or take(view, i, n) == 0:
            break
        admitted += 1
    return admitted
