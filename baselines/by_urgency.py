"""A batch in order of urgency, for schedulers that rank the requests present.

A scheduler writes a number for every request present to the column `urgency`, smaller being more urgent, and calls one
of the functions here. Requests of equal urgency are served as in Sarathi (decodes, prompts begun, new prompts). The
less urgent get what is left, so that no token of the budget is lost. If a running request finds no KV block, the least
urgent one is preempted. If a new request finds none, no less urgent one is admitted either, unless the new one may
preempt.
"""

from math import inf

from baselines.registry import Declarations
from llmsched_env.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_missing
from llmsched_env.simulator.memory import request_memory
from llmsched_env.simulator.ordering import heap_of_present, pop_least
from llmsched_env.simulator.primitives import (
    again_if_preempted,
    holds_seat,
    is_decoding,
    memory_for_prompt,
    preempt,
    prefill_left,
    seats_left,
    take,
    tokens_left,
    usable,
)
from llmsched_env.simulator.scheduler import Log, Param
from llmsched_env.simulator.state import PREEMPTED, RUNNING, WAITING

URGENCY = ("urgency",)
"""The first column of request memory of all these schedulers; those with more declare `(*URGENCY, "other")`."""

LIMITS = {
    "token_budget": Param(512, 1, 16384, "tokens", Log(64, 8192)),
    "max_num_seqs": Param(inf, 1, inf, "requests", Log(8, 1024)),
}
"""The first parameters of all these schedulers."""

WORK_CONSERVING: Declarations = {
    "work_conserving": True,
    "throughput_optimal": True,
    "mixes_phases": True,
    "chunks_prefill": True,
}
"""What all these schedulers declare."""

own = request_memory(URGENCY)


@compiled
def serve_classes(view):
    """Serve class by class, a class being the requests of one urgency; for a few distinct urgencies.

    Inside a class running requests are served in order of admission and waiting ones in order of the queue.
    """
    admitting = True
    level = _next_level(view, -inf)
    while level < inf and _room(view):
        _go_on_with_class(view, level, True)
        _go_on_with_class(view, level, False)
        admitting = admitting and _start_class(view, level)
        level = _next_level(view, level)
    return again_if_preempted(view)


@compiled
def serve_each(view):
    """Serve request by request, equals in order of their numbers; for urgencies that are all different.

    The scheduler must declare a heap.
    """
    return _serve_by_heap(view, False, False)


@compiled
def serve_each_preemptive(view):
    """As `serve_each`, but a waiting request that finds no memory preempts less urgent running ones."""
    return _serve_by_heap(view, True, False)


@compiled
def serve_members(view, preemptive):
    """As `serve_each`, but prompts leave a token for each decode: urgency decides which requests take part.

    Engines that limit the requests of a batch and not its tokens work like this. With `preemptive`, a waiting request
    that finds no memory preempts less urgent running ones.
    """
    return _serve_by_heap(view, preemptive, True)


@compiled
def _serve_by_heap(view, preemptive, sparing):
    urgency = own(view).urgency
    size, admitting, decodes_to_come = heap_of_present(view, urgency), True, 0
    if sparing:
        for i in view.running:
            decodes_to_come += 1 if is_decoding(view, i) else 0
    while size > 0 and _room(view):
        i = pop_least(view, urgency, size)
        size -= 1
        most = tokens_left(view)
        if is_decoding(view, i):
            decodes_to_come -= 1 if sparing else 0
        elif view.batch.counts.num_seqs == 0:  # the most urgent always takes part
            most = max(1, most - decodes_to_come)
        else:
            most -= decodes_to_come
        if most <= 0:
            continue
        if view.req.phase[i] != WAITING:
            _go_on(view, i, most)
        elif admitting:
            admitting = _start_preempting(view, i, most) if preemptive else _start(view, i, most)
    if sparing:
        _spend_rest(view)
    return again_if_preempted(view)


@compiled
def _spend_rest(view):
    """Give tokens that were kept for decodes, which then found no memory, to running prompts."""
    for i in view.running:
        if _room(view):
            _go_on(view, i, tokens_left(view))
    for k in range(view.batch.counts.num_seqs):
        i, size = view.batch.requests[k], view.kv.block_size
        held = view.req.kv_blocks[i] * size - view.req.computed[i] - view.req.scheduled[i]
        most = min(prefill_left(view, i), tokens_left(view), held + view.kv.free * size)
        if view.req.computed[i] < view.req.prefill_tokens[i] and most > 0:
            take(view, i, most)


@compiled(inline=True)
def _room(view):
    """Whether the batch can take a token of another request."""
    return tokens_left(view) > 0 and seats_left(view) > 0


@compiled
def _next_level(view, above):
    """The least urgency above this one among those present, inf if there is none."""
    urgency, level = own(view).urgency, inf
    for i in view.running:
        if above < urgency[i] < level:
            level = urgency[i]
    for i in view.waiting:
        if above < urgency[i] < level:
            level = urgency[i]
    return level


@compiled
def _go_on_with_class(view, level, decoding):
    """Serve the running requests of a class that decode, or those that do not."""
    urgency = own(view).urgency
    for i in view.running:
        if not _room(view):
            return
        if urgency[i] == level and is_decoding(view, i) == decoding:
            _go_on(view, i, tokens_left(view))


@compiled
def _start_class(view, level):
    """Admit waiting requests of a class; False if one found no memory."""
    urgency = own(view).urgency
    for i in view.waiting:
        if not _room(view):
            return True
        if urgency[i] == level and view.req.phase[i] == WAITING and not _start(view, i, tokens_left(view)):
            return False
    return True


@compiled(inline=True)
def _go_on(view, i, most):
    """A decode token, or a prefill chunk of up to `most`, for running request `i`."""
    if view.req.phase[i] != RUNNING or view.req.scheduled[i] > 0:
        return
    n = min(usable(view, i), most)
    if blocks_missing(view, i, n) <= view.kv.free or _make_room(view, i, n):
        take(view, i, n)


@compiled(inline=True)
def _start(view, i, most):
    """Admit waiting request `i` with up to `most` tokens of its prompt; False without memory for all of it."""
    return memory_for_prompt(view, i) and take(view, i, min(usable(view, i), most)) > 0


@compiled
def _start_preempting(view, i, most):
    """Admit waiting request `i`, preempting less urgent ones for its memory; False if even that is not enough.

    It is not admitted if this batch has preempted a more urgent request, which needs the memory to come back.
    """
    req, urgency, n, theirs = view.req, own(view).urgency, usable(view, i), 0
    for j in view.running:
        if req.phase[j] == PREEMPTED and urgency[j] <= urgency[i]:
            return False
        if req.phase[j] == RUNNING and urgency[j] > urgency[i]:
            theirs += req.kv_blocks[j]
    if view.batch.counts.admitted >= view.batch.counts.admit_limit:
        return False
    if blocks_missing(view, i, n) > view.kv.free + theirs:
        return False
    while blocks_missing(view, i, n) > view.kv.free:
        victim = i
        for j in view.running:
            if req.phase[j] == RUNNING and urgency[j] > urgency[i]:
                victim = j if victim == i or urgency[j] >= urgency[victim] else victim
        if victim == i:
            return False
        preempt(view, victim)
    return take(view, i, min(n, most)) > 0


@compiled
def _make_room(view, i, n):
    """Preempt the least urgent, of equals the latest admitted, until `n` tokens of `i` fit; False if that was `i`."""
    urgency = own(view).urgency
    while blocks_missing(view, i, n) > view.kv.free:
        victim = i
        for j in view.running:
            if holds_seat(view, j) and urgency[j] >= urgency[victim]:
                victim = j
        preempt(view, victim)
        if victim == i:
            return False
    return True
