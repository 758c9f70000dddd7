"""Deadlines, slack, and prompts in order of a key: the parts that schedulers with latency targets are made of.

Each of them writes a number for every pending prompt to column `KEY` of `view.mem.request`, smaller going first, and
has the prompts served by `prompts_by_key`, which keeps the batch within a time. Schedulers declare a heap for it.
Times of batches and prompts are those of the engine's profile, see `llmsched_env.simulator.step_time`.
"""

from math import inf, isnan

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import heapify, pop
from llmsched_env.simulator.kv_cache import cached_tokens
from llmsched_env.simulator.ordering import heap_of_prompts
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
from llmsched_env.simulator.step_time import chunk_seconds, chunk_within

KEY = 0  # column of request memory
BEHIND = 1e9  # s, added to keys of requests that come after all others; keys in seconds stay exact to 1e-7 s


@compiled(inline=True)
def first_token_due(view, i):
    """When the first output token of request `i` is due (s); inf without a target."""
    return view.req.arrival[i] + view.req.ttft_slo[i]


@compiled(inline=True)
def missed_first_token(view, i):
    """Whether the first token of request `i` came too late, or is overdue."""
    first = view.req.first_token[i]
    return (view.clock if isnan(first) else first) > first_token_due(view, i)


@compiled
def next_token_due(view, i, paced):
    """When the next output token of request `i` is due (s); inf without a target.

    Token n is due n - 1 times the TPOT target after the first one: after the time at which that was due, or, where
    `paced` is 1, after the time at which it came. The first leaves more room to those whose prompts were done early,
    the second keeps the mean TPOT itself below the target.
    """
    req, done = view.req, view.req.generated[i] + view.req.in_flight[i]
    if done == 0:
        return first_token_due(view, i)
    if req.tpot_slo[i] == inf:
        return inf
    start = first_token_due(view, i)
    if (paced > 0 or start == inf) and not isnan(req.first_token[i]):
        start = req.first_token[i]
    return start + done * req.tpot_slo[i]


@compiled
def tightest_tpot(view):
    """The smallest TPOT target (s) among the decoding requests; inf if there is none."""
    tightest = inf
    for i in view.running:
        if view.req.tpot_slo[i] < tightest and is_decoding(view, i):
            tightest = view.req.tpot_slo[i]
    return tightest


@compiled
def smallest_slack(view, paced):
    """Seconds that the batch may last until the next token of one of its decoding requests is overdue.

    Those that are overdue already cannot be helped any more: from now on they are to keep the pace of their target.
    """
    least = inf
    for i in view.running:
        if is_decoding(view, i):
            slack = next_token_due(view, i, paced) - view.clock
            least = min(least, slack if slack > 0.0 else view.req.tpot_slo[i])
    return least


@compiled
def prefill_seconds(view, i):
    """Seconds of a batch of nothing but the prefill left of request `i`."""
    n, before = prefill_left(view, i), view.req.computed[i] + cached_tokens(view, i)
    if n == 0:
        return 0.0
    return chunk_seconds(view, n, before)


@compiled
def prompts_by_key(view, seconds, least, spare):
    """Prefill prompts, begun and waiting alike, least key first, while the batch lasts no longer than `seconds`.

    Up to `least` prefill tokens go into the batch whatever they take. Waiting requests with keys from `BEHIND` on must
    leave the share `spare` of all KV blocks free for the others. Where a waiting request finds no memory, those
    behind it are not admitted either. What comes back from the host to decode counts as a prompt of one token.
    """
    heap, admitting = view.mem.heap, True
    left = heap_of_prompts(view, view.mem.request[:, KEY])
    while left > 0 and tokens_left(view) > 0:
        i = pop(heap, left, view.mem.request[:, KEY])
        left -= 1
        waits = view.req.phase[i] == WAITING
        if waits and not admitting:
            continue
        n = max(chunk_within(view, i, tokens_left(view), seconds), least - view.batch.counts.prefill_tokens)
        if waits and prefill_left(view, i) == 0:
            n = 1
        if n <= 0:
            break
        spared = spare if view.mem.request[i, KEY] >= BEHIND else 0.0
        if chunk_above(view, i, n, spared) == 0 and waits:
            admitting = False


@compiled
def gather_decodes(view):
    """Put the decoding requests that are not in the batch yet on the heap by their keys; returns how many."""
    heap, size = view.mem.heap, 0
    for i in view.running:
        if is_decoding(view, i) and view.req.scheduled[i] == 0:
            heap[size] = i
            size += 1
    heapify(heap, size, view.mem.request[:, KEY])
    return size


@compiled
def decode_one(view, i):
    """One token for request `i` if it decodes; lack of KV memory preempts the latest admitted, as in `decodes`."""
    if is_decoding(view, i) and tokens_left(view) > 0 and seats_left(view) > 0 and make_room(view, i, 1):
        take(view, i, 1)
