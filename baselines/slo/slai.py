"""SLAI: a decode waits until its last schedulable time, and prompts use the budget meanwhile."""

from math import inf, isnan

from baselines.by_urgency import LIMITS, WORK_CONSERVING
from baselines.registry import register_scheduler
from baselines.slo.by_key import KEY, gather_decodes, own
from llmsched_env.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_missing
from llmsched_env.simulator.memory import engine_memory, params_of
from llmsched_env.simulator.ordering import heap_of_waiting, pop_least
from llmsched_env.simulator.primitives import (
    ALL,
    again_if_preempted,
    chunk,
    chunks,
    is_decoding,
    preempt,
    prefill_left,
    reserve,
    seats_left,
    take,
    tokens_left,
    untake,
)
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler
from llmsched_env.simulator.state import WAITING

PARAMS = {
    **LIMITS,
    "max_num_seqs": Param(128, 1, inf, "requests", Log(16, 1024)),
    "offset": Param(5, 0, 100, "mean batch times before a token is due", Linear(0, 20)),
    "offset_full": Param(10, 0, 100, "the same while KV memory is nearly full"),
    "full": Param(0.96, 0, 1, "share of KV blocks in use from which on it is"),
    "paying_first": Param(0, 0, 1, "0: shortest prompt first, 1: by priority first"),
}
ENGINE = (
    "batches",  # batches seen
    "mean_seconds",  # of them
    "counted",  # 1 if the last batch is among them
)
params, memory = params_of(PARAMS), engine_memory(ENGINE)
CLASS = 1e9  # tokens, between the keys of two priorities


@compiled
def compose(view):
    """Decodes whose last schedulable time has come; prompts begun; new prompts, shortest first; then other decodes.

    The last schedulable time is that of the request's latest token plus its TPOT target, less `offset` mean batch
    times, or `offset_full` of them while KV memory is nearly full. Decodes without a target have none, and take what is
    left. A new prompt gets the blocks of all its tokens at once, and no longer one starts before it. A decode that
    finds no block sends back the prompt begun last. If there is none, the decode itself is preempted.
    """
    _learn(view)
    _decode_until(view, view.clock)
    chunks(view, view.running, ALL)
    _start_prompts(view)
    _decode_until(view, inf)
    if view.batch.counts.num_seqs > 0:
        memory(view).counted = 0.0
    return again_if_preempted(view)


@compiled
def _learn(view):
    """Count the batch that ended last, once."""
    m = memory(view)
    if m.counted == 0.0 and view.last.duration > 0.0:
        m.counted = 1.0
        m.batches += 1.0
        m.mean_seconds += (view.last.duration - m.mean_seconds) / m.batches


@compiled
def _decode_until(view, time):
    """Decodes whose last schedulable time is `time` or before, earliest first."""
    key = own(view).key
    for i in view.running:
        if is_decoding(view, i):
            key[i] = _last_schedulable(view, i)
    left = gather_decodes(view)
    while left > 0 and tokens_left(view) > 0 and seats_left(view) > 0:
        i = pop_least(view, key, left)
        left -= 1
        if key[i] > time:
            break
        if is_decoding(view, i) and _make_room(view, i):
            take(view, i, 1)


@compiled
def _last_schedulable(view, i):
    req, p = view.req, params(view)
    if isnan(req.last_token_time[i]):
        return view.clock  # its first token is due
    used = view.kv.total - view.kv.free
    offset = p.offset_full if used >= p.full * view.kv.total else p.offset
    due = req.last_token_time[i] + (1 + req.in_flight[i]) * req.tpot_slo[i]
    return due - offset * memory(view).mean_seconds


@compiled
def _start_prompts(view):
    key, paying_first = own(view).key, params(view).paying_first > 0
    for i in view.waiting:
        key[i] = prefill_left(view, i) + (CLASS * view.req.priority[i] if paying_first else 0.0)
    left = heap_of_waiting(view, key)
    while left > 0 and tokens_left(view) > 0:
        i = pop_least(view, key, left)
        left -= 1
        if chunk(view, i, ALL) == 0:
            break
        reserve(view, i, view.req.prefill_tokens[i])


@compiled
def _make_room(view, i):
    """Find a KV block for a decode, sending back the prompts begun last; False if `i` itself was preempted."""
    while blocks_missing(view, i, 1) > view.kv.free:
        if not _send_back_prompt(view):
            preempt(view, i)
            return False
    return True


@compiled
def _send_back_prompt(view):
    """Send back the prompt begun last, first of all one that this batch admits; returns whether there was one."""
    for entry in range(view.batch.counts.num_seqs - 1, -1, -1):
        if view.req.phase[view.batch.requests[entry]] == WAITING:
            untake(view, view.batch.requests[entry])
            return True
    for k in range(len(view.running) - 1, -1, -1):
        j = view.running[k]
        if view.req.computed[j] < view.req.prefill_tokens[j] and preempt(view, j):
            return True
    return False


slai = register_scheduler(
    Scheduler(
        "slai",
        compose,
        params=PARAMS,
        memory={"request": KEY, "engine": ENGINE, "heap": ("requests",)},
        reserves_kv=True,
        reference="SLAI, arXiv 2508.01002",
        **WORK_CONSERVING,
    )
)
