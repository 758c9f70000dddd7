"""vLLM V1: the one scheduler of vLLM today, rule by rule (vllm/v1/core/sched of release 0.33)."""

from math import inf

from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_missing
from llmsched_env.simulator.memory import params_of
from llmsched_env.simulator.primitives import (
    ALL,
    again_if_preempted,
    decode_run,
    holds_seat,
    make_room,
    preempt,
    take,
    tokens_left,
    usable,
)
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler
from llmsched_env.simulator.state import RUNNING

PARAMS = {
    "token_budget": Param(8192, 1, 131072, "tokens", Log(64, 16384)),  # max_num_batched_tokens
    "max_num_seqs": Param(1024, 1, inf, "requests", Log(8, 1024)),
    "max_num_active_seqs": Param(inf, 1, inf, "requests"),
    "enable_chunked_prefill": Param(1, 0, 1, "0 or 1"),
    "long_prefill_token_threshold": Param(0, 0, inf, "tokens; 0: no cap", (0, 64, 128, 256, 512, 1024, 2048)),
    "long_prefill_token_threshold_adaptive": Param(0, 0, inf, "tokens for all present to share; 0: off"),
    "scheduler_reserve_full_isl": Param(1, 0, 1, "0 or 1", (0, 1)),
    "watermark": Param(0, 0, 1, "share of KV blocks", Linear(0, 0.2)),
    "priority": Param(0, 0, 1, "0: first come first served, 1: by priority"),
}
params = params_of(PARAMS)


@compiled
def compose(view):
    """Tokens for running requests in order of admission, whatever their phase; then new ones if none was preempted.

    A decode is a request with one known token left to compute. Without a cap on long prompts at most one prompt is cut,
    so decodes always find room. `max_num_seqs` counts all running requests, whether or not they have tokens in this
    batch. A watermark, a cap on prompts, priorities, or chunking switched off may leave room unused.
    """
    cap = _prompt_cap(view)
    _serve_running(view, cap)
    if view.batch.counts.preemptions == 0:
        _admit(view, cap)
    return again_if_preempted(view)


@compiled
def _prompt_cap(view):
    """Most tokens that one request may get in this batch."""
    present, p = len(view.running) + len(view.waiting), params(view)
    cap = int(p.long_prefill_token_threshold)
    if cap == 0 or present <= 1:
        return ALL
    if p.long_prefill_token_threshold_adaptive > 0:
        cap = max(cap, int(p.long_prefill_token_threshold_adaptive) // present)
    return cap


@compiled
def _serve_running(view, cap):
    """Tokens for running requests, up to the first that finds no memory."""
    k, by_priority = 0, params(view).priority > 0
    while tokens_left(view) > 0:
        k = decode_run(view, view.running, k, True)
        if k >= len(view.running) or tokens_left(view) <= 0:
            break
        i = view.running[k]
        k += 1
        if view.req.phase[i] != RUNNING:  # preempted for one before it, or its last token is on the way
            continue
        n = min(usable(view, i), cap, tokens_left(view))
        if by_priority:
            if _make_room_by_priority(view, i, n):
                take(view, i, n)
        elif make_room(view, i, n):
            take(view, i, n)
        else:
            break


@compiled
def _make_room_by_priority(view, i, n):
    """Preempt the least urgent, those in the batch included, until `n` tokens of `i` fit; False if that was `i`."""
    req = view.req
    while blocks_missing(view, i, n) > view.kv.free:
        victim = -1
        for j in view.running:
            if holds_seat(view, j) and (victim < 0 or _less_urgent(req, j, victim)):
                victim = j
        preempt(view, victim)
        if victim == i:
            return False
    return True


@compiled(inline=True)
def _less_urgent(req, i, j):
    if req.priority[i] != req.priority[j]:
        return req.priority[i] > req.priority[j]
    return req.arrival[i] > req.arrival[j]


@compiled
def _admit(view, cap):
    """Waiting requests in order of the queue, up to the first that does not fit."""
    p, counts = params(view), view.batch.counts
    if p.priority > 0:
        _sort_by_priority(view)
    for k in range(len(view.waiting)):
        running = len(view.running) + counts.admitted
        if tokens_left(view) <= 0 or running >= counts.seq_limit or counts.admitted >= counts.admit_limit:
            break
        i = view.waiting[k]
        whole = usable(view, i)
        n = min(whole, cap)
        if p.enable_chunked_prefill == 0 and n > tokens_left(view):
            break
        n = min(n, tokens_left(view))
        checked = whole if p.scheduler_reserve_full_isl > 0 else n
        if blocks_missing(view, i, checked) + _spare_blocks(view, running) > view.kv.free:
            break
        take(view, i, n)


@compiled(inline=True)
def _spare_blocks(view, running):
    # vLLM takes the share of all blocks, its null block included, and lets the first request pass it.
    return int(params(view).watermark * (view.kv.total + 1)) if running > 0 else 0


@compiled
def _sort_by_priority(view):
    """Insertion sort of the waiting queue by (priority, arrival, number): it is nearly sorted already."""
    queue = view.waiting
    for k in range(1, len(queue)):
        i = queue[k]
        place = k
        while place > 0 and _before(view.req, i, queue[place - 1]):
            queue[place] = queue[place - 1]
            place -= 1
        queue[place] = i


@compiled(inline=True)
def _before(req, i, j):
    if req.priority[i] == req.priority[j] and req.arrival[i] == req.arrival[j]:
        return i < j
    return _less_urgent(req, j, i)


vllm_v1 = register_scheduler(
    Scheduler(
        "vllm_v1",
        compose,
        params=PARAMS,
        work_conserving=True,
        throughput_optimal=True,
        mixes_phases=True,
        chunks_prefill=True,
        reference="vLLM 0.33.0, v1 Scheduler and AsyncScheduler; defaults of its server on an H100",
    )
)
