"""Admission by a look ahead: a request enters if memory lasts until all active requests have finished.

The check of MC-SF (arXiv 2502.07115) in an engine where prompts take time. Every active request is assumed to compute
one token a batch from now on and to leave after its last one. So use only grows between two departures, and it is
enough to look at the batches in which some request holds its last token. A prompt that this batch does not finish may
take any number of batches more: its largest use counts all the time. Memory is counted in whole blocks, and shared
prefixes once for each request. Where the first token comes with the prompt, one token too many is counted for each
request.

With predictions that are not too small nothing is ever preempted. A request that has outlived its prediction is
expected to end with its next token. If memory runs out, the requests admitted last are preempted.
"""

import numpy as np

from baselines.registry import Declarations
from llmsched_env.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_of
from llmsched_env.simulator.memory import engine_memory, numbered, params_of, request_memory
from llmsched_env.simulator.ordering import heapify, pop
from llmsched_env.simulator.primitives import (
    ALL,
    again_if_preempted,
    chunk,
    chunks,
    decodes,
    holds_seat,
    prefill_left,
    seats_left,
    tokens_left,
    usable,
)
from llmsched_env.simulator.scheduler import Log, Param
from llmsched_env.simulator.state import LAST_TOKEN, WAITING

LIMITS = {
    "token_budget": Param(8192, 1, 131072, "tokens", Log(128, 16384)),
    "max_num_seqs": Param(np.inf, 1, np.inf, "requests", Log(8, 1024)),
}
PARAMS = {
    **LIMITS,
    "max_output_tokens": Param(2048, 1, 131072, "tokens, where there is no prediction"),
    "overestimate": Param(1.0, 1, 10, "times the prediction", Log(1, 4, whole=False)),
}
"""The parameters of all schedulers that look ahead."""

LOOK_AHEAD_COLUMNS = (
    "key",  # order of admission, least first
    "held",  # in batch number t from now on, this batch being number 1, a request holds `held` + t tokens ...
    "left",  # ... up to batch number `left`, its last one
    "use",  # KV blocks of all requests in batch number `left`
)
"""The first columns of request memory of all schedulers that look ahead."""

_MOST_PARTS = 64
LOOK_AHEAD_MEMORY = (
    "fixed",  # KV blocks of prompts that this batch does not finish
    "peaks",  # sum of the largest uses of all requests, in KV blocks
    "use_known",  # 1 once the column `use` has been filled
    *numbered("part", _MOST_PARTS),  # requests by the number of tokens in their last, partly filled block
)
"""The engine memory of all schedulers that look ahead."""

LOOKS_AHEAD: Declarations = {
    "throughput_optimal": True,  # without a limit on memory all batches are full
    "mixes_phases": True,
    "chunks_prefill": True,
}

params, own = params_of(PARAMS), request_memory(LOOK_AHEAD_COLUMNS)
memory = engine_memory(LOOK_AHEAD_MEMORY, arrays=("part",))


@compiled
def expected_left(view, i):
    """Output tokens that request `i` is still expected to generate, at least one and at most what memory can hold."""
    req, p = view.req, params(view)
    output = req.known_output[i]
    output = p.max_output_tokens if np.isnan(output) else np.ceil(p.overestimate * output)
    room = view.kv.total * view.kv.block_size - max(req.prefill_tokens[i], req.computed[i])
    return max(1.0, min(output - req.generated[i] - req.in_flight[i], float(room)))


@compiled
def go_on(view):
    """Serve what is under way: a token for each decoding request, then prompts that have begun."""
    decodes(view, view.running)
    chunks(view, view.running, ALL)


@compiled
def may_admit(view):
    """Whether the batch could take a new request at all."""
    return (
        len(view.waiting) > 0 and tokens_left(view) > 0 and seats_left(view) > 0 and view.batch.counts.preemptions == 0
    )


@compiled
def admit_least_key(view):
    """Admit waiting requests by the column `key`, least first, up to the first that does not fit."""
    if may_admit(view):
        heap, key, left = view.mem.heap, own(view).key, 0
        first = view.waiting[0]
        for i in view.waiting:
            if key[i] < key[first] or (key[i] == key[first] and i < first):
                first = i
        look_ahead(view)
        if admit(view, first):  # in most batches of a busy engine it does not fit, and no order is needed
            for i in view.waiting:
                if i != first:
                    heap[left] = i
                    left += 1
            heapify(heap, left, key)
            while left > 0 and admit(view, pop(heap, left, key)):
                left -= 1
    return again_if_preempted(view)


@compiled
def look_ahead(view):
    """Plan what the running requests will hold. To be called before `admit`, once they are in the batch."""
    keep, m = own(view), memory(view)
    m.fixed = 0.0
    m.peaks = 0.0
    m.use_known = 0.0
    m.part[:] = 0.0
    for i in view.running:
        if holds_seat(view, i):
            _plan(view, i)
            peak = blocks_of(view, keep.held[i] + keep.left[i])
            m.peaks += peak
            if prefill_left(view, i) > 0:
                m.fixed += peak
                keep.left[i] = 0.0


@compiled
def admit(view, i):
    """Admit waiting request `i` if memory will last, or if no other request is active; returns whether it entered."""
    keep, m = own(view), memory(view)
    if tokens_left(view) == 0 or seats_left(view) == 0:
        return False
    _plan(view, i)
    held, left = keep.held[i], keep.left[i]
    peak = blocks_of(view, held + left)
    alone = len(view.running) + view.batch.counts.admitted == 0
    cut = usable(view, i) > tokens_left(view)
    if not (alone or m.peaks + peak <= view.kv.total or _lasts(view, i, cut)):
        return False
    keep.left[i] = 0.0  # not a member in the loop below
    if chunk(view, i, ALL) == 0:
        return False
    m.peaks += peak
    if cut:
        m.fixed += peak
        return True
    if m.use_known == 1.0:
        use = float(peak)
        for k in range(len(view.running) + view.batch.counts.num_seqs):
            j = _member(view, k)
            if j >= 0:
                if keep.left[j] <= left:
                    keep.use[j] += blocks_of(view, held + keep.left[j])
                if keep.left[j] >= left:
                    use += blocks_of(view, keep.held[j] + left)
        keep.use[i] = use
    keep.left[i] = left
    return True


@compiled
def _plan(view, i):
    """What request `i` will hold if this batch finishes its prompt and each later one computes a token of it."""
    req, keep = view.req, own(view)
    if req.phase[i] == LAST_TOKEN:
        keep.held[i], keep.left[i] = req.computed[i] - 1.0, 1.0
    elif req.computed[i] >= req.prefill_tokens[i]:
        keep.held[i], keep.left[i] = float(req.computed[i]), expected_left(view, i)
    else:
        keep.held[i], keep.left[i] = req.prefill_tokens[i] - 1.0, 1.0 + expected_left(view, i)


@compiled
def _lasts(view, i, cut):
    """Whether memory suffices for waiting request `i` and all others whenever one of them holds its last token."""
    keep, m = own(view), memory(view)
    if m.use_known == 0.0:
        _sum_up(view)
    held, left = keep.held[i], keep.left[i]
    peak = blocks_of(view, held + left)
    total = view.kv.total - m.fixed
    use = float(peak)
    for k in range(len(view.running) + view.batch.counts.num_seqs):
        j = _member(view, k)
        if j >= 0:
            if cut or keep.left[j] <= left:
                added = peak if cut else blocks_of(view, held + keep.left[j])
                if keep.use[j] + added > total:
                    return False
            if keep.left[j] >= left:
                use += blocks_of(view, keep.held[j] + left)
    return (peak if cut else use) <= total


@compiled(inline=True)
def _member(view, k):
    """Number `k` of the running requests followed by the batch; -1 if it counts elsewhere, or its use is fixed."""
    if k < len(view.running):
        i = view.running[k]
        return i if holds_seat(view, i) and own(view).left[i] > 0.0 else -1
    i = view.batch.requests[k - len(view.running)]
    return i if view.req.phase[i] == WAITING and own(view).left[i] > 0.0 else -1


@compiled
def _sum_up(view):
    """Fill the column `use`: from the last to leave to the first, adding one request after another.

    The blocks of many requests are added up at once: the whole blocks of `held` of each, and for the tokens beyond them
    the numbers of requests by class.
    """
    keep, m, size = own(view), memory(view), view.kv.block_size
    heap = view.mem.heap[len(view.waiting) - view.batch.counts.admitted :]  # the part before holds waiting requests
    members = 0
    for k in range(len(view.running) + view.batch.counts.num_seqs):
        i = _member(view, k)
        if i >= 0:
            heap[members] = i
            keep.use[i] = -keep.left[i]
            members += 1
    heapify(heap, members, keep.use)
    step = (size + _MOST_PARTS - 1) // _MOST_PARTS  # tokens in a class; above 1 they are rounded up
    classes = (size + step - 1) // step
    whole = 0.0
    while members > 0:
        i = pop(heap, members, keep.use)
        members -= 1
        full = keep.held[i] // size
        whole += full
        part = int(keep.held[i] - full * size)
        m.part[(part + step - 1) // step % classes] += 1.0
        if part > (classes - 1) * step:
            whole += 1.0
        use = whole
        for c in range(classes):
            use += m.part[c] * ((c * step + keep.left[i] + size - 1) // size)
        keep.use[i] = use  # of those that leave together, the last one gets the use of all
    m.use_known = 1.0
