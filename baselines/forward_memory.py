"""Admission by a look ahead: a request enters if memory lasts until all that are active have finished.

The check of MC-SF (arXiv 2502.07115) in an engine where prompts take time. From now on every active request is taken to
compute one token a batch and to leave after its last one, so use only grows between two departures, and it is enough
to look at the batch in which each request holds its last token. A prompt that this batch does not finish may still take
any number of batches: its largest use counts all the time. Memory is counted in whole blocks, shared prefixes anew for
each request, and one token a request more than there is where the first token comes with the prompt.

With predictions that are not too small nothing is ever preempted. A request that has outlived its prediction is
expected to end with its next token; if memory runs out, the latest admitted go, as the primitives have it.
"""

import numpy as np

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import heapify, pop
from llmsched_env.simulator.kv_cache import blocks_of
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
from llmsched_env.simulator.rule import Log, Param
from llmsched_env.simulator.state import LAST_TOKEN, WAITING

# Memory by request. In batch t from now on, t = 1 being this one, it holds HELD + t tokens, up to batch LEFT.
KEY, LEFT, HELD, USE = range(4)  # USE: blocks of all in batch LEFT
# Memory of the engine: blocks of prompts that this batch does not finish, the sum of all largest uses, whether USE is
# known, and the number of requests by the tokens in their last, partly filled block.
FIXED, PEAKS, KNOWN, PARTS = range(4)
_MOST_PARTS = 64

REQUEST_MEMORY = ("key", "left", "held", "use")
ENGINE_MEMORY = ("fixed", "peaks", "known", *(f"part_{k}" for k in range(_MOST_PARTS)))
LIMITS = {
    "token_budget": Param(8192, 1, 131072, "tokens", Log(128, 16384)),
    "max_num_seqs": Param(np.inf, 1, np.inf, "requests", Log(8, 1024)),
}
"""The first parameters of all schedulers that look ahead; the next are those that `expected_left` reads."""
LENGTHS = {
    "max_output_tokens": Param(2048, 1, 131072, "tokens, where there is no prediction"),
    "overestimate": Param(1.0, 1, 10, "times the prediction", Log(1, 4, whole=False)),
}
_BUDGET, _SEQS, MAX_OUTPUT, OVERESTIMATE = range(4)


@compiled
def expected_left(view, i):
    """Output tokens that request `i` is expected to generate yet, at least one and no more than memory could hold."""
    req, params = view.req, view.mem.params
    output = req.known_output[i]
    output = params[MAX_OUTPUT] if np.isnan(output) else np.ceil(params[OVERESTIMATE] * output)
    room = view.kv.total * view.kv.block_size - max(req.prefill_tokens[i], req.computed[i])
    return max(1.0, min(output - req.generated[i] - req.in_flight[i], float(room)))


@compiled
def go_on(view):
    """What is under way: a token for each decoding request, then prompts that have begun."""
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
    """Admit waiting requests by the column KEY, least first, up to the first misfit."""
    if may_admit(view):
        heap, keys, left = view.mem.heap, view.mem.request[:, KEY], 0
        first = view.waiting[0]
        for i in view.waiting:
            if keys[i] < keys[first] or (keys[i] == keys[first] and i < first):
                first = i
        look_ahead(view)
        if admit(view, first):  # in most batches of a busy engine it does not fit, and no order is needed
            for i in view.waiting:
                if i != first:
                    heap[left] = i
                    left += 1
            heapify(heap, left, keys)
            while left > 0 and admit(view, pop(heap, left, keys)):
                left -= 1
    return again_if_preempted(view)


@compiled
def look_ahead(view):
    """Plan what the requests that run will hold; to be called before `admit`, once what runs is in the batch."""
    memory, engine = view.mem.request, view.mem.engine
    engine[:] = 0.0
    for i in view.running:
        if holds_seat(view, i):
            _plan(view, i)
            peak = blocks_of(view, memory[i, HELD] + memory[i, LEFT])
            engine[PEAKS] += peak
            if prefill_left(view, i) > 0:
                engine[FIXED] += peak
                memory[i, LEFT] = 0.0


@compiled
def admit(view, i):
    """Admit waiting request `i` if memory will last, and in any case if nobody else is there; whether it entered."""
    memory, engine = view.mem.request, view.mem.engine
    if tokens_left(view) == 0 or seats_left(view) == 0:
        return False
    _plan(view, i)
    held, left = memory[i, HELD], memory[i, LEFT]
    peak = blocks_of(view, held + left)
    alone = len(view.running) + view.batch.counts.admitted == 0
    cut = usable(view, i) > tokens_left(view)
    if not (alone or engine[PEAKS] + peak <= view.kv.total or _lasts(view, i, cut)):
        return False
    memory[i, LEFT] = 0.0  # none of those below
    if chunk(view, i, ALL) == 0:
        return False
    engine[PEAKS] += peak
    if cut:
        engine[FIXED] += peak
        return True
    if engine[KNOWN] == 1.0:
        use = float(peak)
        for k in range(len(view.running) + view.batch.counts.num_seqs):
            j = _member(view, k)
            if j >= 0:
                if memory[j, LEFT] <= left:
                    memory[j, USE] += blocks_of(view, held + memory[j, LEFT])
                if memory[j, LEFT] >= left:
                    use += blocks_of(view, memory[j, HELD] + left)
        memory[i, USE] = use
    memory[i, LEFT] = left
    return True


@compiled
def _plan(view, i):
    """What request `i` will hold if it computes a token a batch once its prompt is in, which this batch finishes."""
    req, memory = view.req, view.mem.request
    if req.phase[i] == LAST_TOKEN:
        memory[i, HELD], memory[i, LEFT] = req.computed[i] - 1.0, 1.0
    elif req.computed[i] >= req.prefill_tokens[i]:
        memory[i, HELD], memory[i, LEFT] = float(req.computed[i]), expected_left(view, i)
    else:
        memory[i, HELD], memory[i, LEFT] = req.prefill_tokens[i] - 1.0, 1.0 + expected_left(view, i)


@compiled
def _lasts(view, i, cut):
    """Whether memory suffices for waiting request `i` and all others whenever one of them holds its last token."""
    memory, engine = view.mem.request, view.mem.engine
    if engine[KNOWN] == 0.0:
        _sum_up(view)
    held, left = memory[i, HELD], memory[i, LEFT]
    peak = blocks_of(view, held + left)
    total = view.kv.total - engine[FIXED]
    use = float(peak)
    for k in range(len(view.running) + view.batch.counts.num_seqs):
        j = _member(view, k)
        if j >= 0:
            if cut or memory[j, LEFT] <= left:
                own = peak if cut else blocks_of(view, held + memory[j, LEFT])
                if memory[j, USE] + own > total:
                    return False
            if memory[j, LEFT] >= left:
                use += blocks_of(view, memory[j, HELD] + left)
    return (peak if cut else use) <= total


@compiled(inline=True)
def _member(view, k):
    """Request number `k` of the running ones and then the batch; -1 if it is none of them, or its use is fixed."""
    if k < len(view.running):
        i = view.running[k]
        return i if holds_seat(view, i) and view.mem.request[i, LEFT] > 0.0 else -1
    i = view.batch.requests[k - len(view.running)]
    return i if view.req.phase[i] == WAITING and view.mem.request[i, LEFT] > 0.0 else -1


@compiled
def _sum_up(view):
    """Fill USE: from the last to leave to the first, adding one request after another.

    The blocks of many requests at once: of each, the whole blocks of HELD, and the tokens beyond, in classes.
    """
    memory, engine, size = view.mem.request, view.mem.engine, view.kv.block_size
    heap = view.mem.heap[len(view.waiting) - view.batch.counts.admitted :]  # before are those that still wait
    keys, members = memory[:, USE], 0
    for k in range(len(view.running) + view.batch.counts.num_seqs):
        i = _member(view, k)
        if i >= 0:
            heap[members] = i
            memory[i, USE] = -memory[i, LEFT]
            members += 1
    heapify(heap, members, keys)
    step = (size + _MOST_PARTS - 1) // _MOST_PARTS  # tokens in a class; above 1 they are rounded up
    classes = (size + step - 1) // step
    whole = 0.0
    while members > 0:
        i = pop(heap, members, keys)
        members -= 1
        full = memory[i, HELD] // size
        whole += full
        part = int(memory[i, HELD] - full * size)
        engine[PARTS + (part + step - 1) // step % classes] += 1.0
        if part > (classes - 1) * step:
            whole += 1.0
        use = whole
        for c in range(classes):
            use += engine[PARTS + c] * ((c * step + memory[i, LEFT] + size - 1) // size)
        memory[i, USE] = use  # of those that leave together, the last one gets the use of all
    engine[KNOWN] = 1.0
