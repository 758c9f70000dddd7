"""SGLang: prefill first, in batches of its own; admission by predicted growth; longest cached prefix first if asked."""

from math import inf

from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_missing, cached_tokens
from llmsched_env.simulator.memory import engine_memory, params_of, request_memory
from llmsched_env.simulator.ordering import heap_of_waiting, pop_least
from llmsched_env.simulator.primitives import decodes, evict, is_decoding, prefill_left, take, tokens_left, usable
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler
from llmsched_env.simulator.state import RUNNING

PARAMS = {
    "token_budget": Param(8192, 1, 131072, "tokens", Log(256, 16384)),  # chunked_prefill_size
    "max_num_seqs": Param(inf, 1, inf, "requests", Log(8, 1024)),
    "schedule_conservativeness": Param(1.0, 0, 10, "times the first ratio", Linear(0, 2)),
    "max_new_tokens": Param(4096, 1, 131072, "tokens", Log(64, 16384)),
    "longest_prefix_match": Param(0, 0, 1, "0: first come first served, 1: longest cached prefix first", (0, 1)),
}
REQUEST = ("key",)
ENGINE = (
    "new_token_ratio",  # share of the longest output that requests are expected to generate
    "started",  # 1 once the ratio has its first value
)
params, own, memory = params_of(PARAMS), request_memory(REQUEST), engine_memory(ENGINE)

FIRST_RATIO, LEAST_SHARE, DECAY_STEPS = 0.7, 0.14, 600.0
RETRACT_STEPS = 20.0  # decode steps that must fit after a retraction
LPM_QUEUE = 128  # longer queues are served first come first served


@compiled
def compose(view):
    """Prompts, if any has begun or can be admitted; otherwise one token for each running request."""
    m = memory(view)
    first = min(1.0, FIRST_RATIO * params(view).schedule_conservativeness)
    if m.started == 0.0:
        m.started, m.new_token_ratio = 1.0, first
    _extend(view)
    if view.batch.counts.num_seqs == 0:
        decayed = m.new_token_ratio - first * (1.0 - LEAST_SHARE) / DECAY_STEPS
        m.new_token_ratio = max(first * LEAST_SHARE, decayed)
        _retract(view)
        decodes(view, view.running)
    return inf


@compiled
def _extend(view):
    """The prompt that was cut, then waiting ones while memory lasts for what the running ones are expected to grow."""
    req, p, ratio = view.req, params(view), memory(view).new_token_ratio
    room = float(view.kv.free * view.kv.block_size)
    for i in view.running:
        room -= max(0.0, p.max_new_tokens - req.generated[i]) * ratio
        if req.phase[i] == RUNNING and prefill_left(view, i) > 0:
            n = min(prefill_left(view, i), tokens_left(view))
            if blocks_missing(view, i, n) <= view.kv.free:
                room -= take(view, i, n)
    if p.longest_prefix_match > 0 and len(view.waiting) <= LPM_QUEUE:
        key = own(view).key
        for i in view.waiting:
            key[i] = -float(cached_tokens(view, i))
        left = heap_of_waiting(view, key)
        while left > 0 and room > 0.0:
            room = _admit(view, pop_least(view, key, left), room)
            left -= 1
    else:
        for i in view.waiting:
            room = _admit(view, i, room)
            if room <= 0.0:
                break


@compiled
def _admit(view, i, room):
    """Admit waiting request `i` if `room` (tokens) suffices; returns the room left, 0 if it is the last one."""
    counts, n = view.batch.counts, usable(view, i)
    running = len(view.running) + counts.admitted
    longest = max(1.0, params(view).max_new_tokens - view.req.generated[i])
    if running >= counts.seq_limit or tokens_left(view) == 0:
        return 0.0
    if counts.num_seqs > 0 and (counts.prefill_tokens == 0) != (view.req.computed[i] >= view.req.prefill_tokens[i]):
        return 0.0  # requests that return from the host to decode do so in a batch without prompts
    if n + longest >= room and running > 0:  # alone it may try, since it can only grow into the memory there is
        return 0.0
    if blocks_missing(view, i, n) > view.kv.free:
        return 0.0
    taken = take(view, i, min(n, tokens_left(view)))
    return 0.0 if taken < n else room - (n + longest)


@compiled
def _retract(view):
    """Until all can decode, evict the request with the fewest output tokens, of equals the longest prompt."""
    req, retracted = view.req, 0
    while True:
        needed, victim, alive, decoded, longest = 0, -1, 0, 0.0, 0.0
        for i in view.running:
            if is_decoding(view, i):
                needed += blocks_missing(view, i, 1)
                alive += 1
                decoded += req.generated[i]
                longest += params(view).max_new_tokens
                if victim < 0 or _goes_before(req, i, victim):
                    victim = i
        if needed <= view.kv.free or alive <= 1:
            break
        evict(view, victim)
        retracted += 1
    if retracted > 0:
        memory(view).new_token_ratio = min(1.0, (decoded + RETRACT_STEPS * alive) / (longest + 1.0))


@compiled(inline=True)
def _goes_before(req, i, j):
    if req.generated[i] != req.generated[j]:
        return req.generated[i] < req.generated[j]
    return req.prompt_tokens[i] > req.prompt_tokens[j]


sglang = register_scheduler(
    Scheduler(
        "sglang",
        compose,
        params=PARAMS,
        memory={"request": REQUEST, "engine": ENGINE, "heap": ("waiting",)},
        chunks_prefill=True,
        reference="SGLang (arXiv 2312.07104) and its scheduler: schedule_policy.py, schedule_batch.py",
    )
)
