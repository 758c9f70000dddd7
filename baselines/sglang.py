"""SGLang: prefill first, in batches of its own; admission by predicted growth; longest cached prefix first if asked."""

from math import inf

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_missing, cached_tokens
from llmsched_env.simulator.ordering import heap_of_waiting, pop_least
from llmsched_env.simulator.primitives import decodes, evict, is_decoding, prefill_left, take, tokens_left, usable
from llmsched_env.simulator.rule import Linear, Log, Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import RUNNING

_BUDGET, _SEQS, CONSERVATIVENESS, MAX_NEW, LPM = range(5)
KEY = 0  # column of request memory
RATIO, STARTED = range(2)  # engine memory: expected share of the longest output; whether it has its first value

FIRST_RATIO, LEAST_SHARE, DECAY_STEPS = 0.7, 0.14, 600.0
RETRACT_STEPS = 20.0  # decode steps that must fit after a retraction
LPM_QUEUE = 128  # longer queues are served first come first served


@compiled
def compose(view):
    """Prompts, if any can be admitted or has begun; only else one token for each running request."""
    memory = view.mem.engine
    first = min(1.0, FIRST_RATIO * view.mem.params[CONSERVATIVENESS])
    if memory[STARTED] == 0.0:
        memory[STARTED], memory[RATIO] = 1.0, first
    _extend(view)
    if view.batch.counts.num_seqs == 0:
        memory[RATIO] = max(first * LEAST_SHARE, memory[RATIO] - first * (1.0 - LEAST_SHARE) / DECAY_STEPS)
        _retract(view)
        decodes(view, view.running)
    return inf


@compiled
def _extend(view):
    """The prompt that was cut, then waiting ones while memory lasts for what the running ones are expected to grow."""
    req, longest = view.req, view.mem.params[MAX_NEW]
    room = float(view.kv.free * view.kv.block_size)
    for k in range(len(view.running)):
        i = view.running[k]
        room -= max(0.0, longest - req.generated[i]) * view.mem.engine[RATIO]
        if req.phase[i] == RUNNING and prefill_left(view, i) > 0:
            n = min(prefill_left(view, i), tokens_left(view))
            if blocks_missing(view, i, n) <= view.kv.free:
                room -= take(view, i, n)
    if view.mem.params[LPM] > 0 and len(view.waiting) <= LPM_QUEUE:
        for i in view.waiting:
            view.mem.request[i, KEY] = -float(cached_tokens(view, i))
        left = heap_of_waiting(view, view.mem.request[:, KEY])
        while left > 0 and room > 0.0:
            room = _admit(view, pop_least(view, view.mem.request[:, KEY], left), room)
            left -= 1
    else:
        for k in range(len(view.waiting)):
            room = _admit(view, view.waiting[k], room)
            if room <= 0.0:
                break


@compiled
def _admit(view, i, room):
    """Admit waiting request `i` if `room` (tokens) suffices; returns the room left, 0 if it is the last one."""
    counts, n = view.batch.counts, usable(view, i)
    running = len(view.running) + counts.admitted
    longest = max(1.0, view.mem.params[MAX_NEW] - view.req.generated[i])
    if running >= counts.seq_limit or tokens_left(view) == 0:
        return 0.0
    if counts.num_seqs > 0 and (counts.prefill_tokens == 0) != (view.req.computed[i] >= view.req.prefill_tokens[i]):
        return 0.0  # what comes back from the host to decode does so in a batch without prompts
    if n + longest >= room and running > 0:  # alone it may try: it can only grow into the memory there is
        return 0.0
    if blocks_missing(view, i, n) > view.kv.free:
        return 0.0
    taken = take(view, i, min(n, tokens_left(view)))
    return 0.0 if taken < n else room - (n + longest)


@compiled
def _retract(view):
    """Until all can decode, push out the request with the fewest output tokens, of these the longest prompt."""
    req, retracted = view.req, 0
    while True:
        needed, victim, alive, decoded, longest = 0, -1, 0, 0.0, 0.0
        for k in range(len(view.running)):
            i = view.running[k]
            if is_decoding(view, i):
                needed += blocks_missing(view, i, 1)
                alive += 1
                decoded += req.generated[i]
                longest += view.mem.params[MAX_NEW]
                if victim < 0 or _goes_before(req, i, victim):
                    victim = i
        if needed <= view.kv.free or alive <= 1:
            break
        evict(view, victim)
        retracted += 1
    if retracted > 0:
        view.mem.engine[RATIO] = min(1.0, (decoded + RETRACT_STEPS * alive) / (longest + 1.0))


@compiled(inline=True)
def _goes_before(req, i, j):
    if req.generated[i] != req.generated[j]:
        return req.generated[i] < req.generated[j]
    return req.prompt_tokens[i] > req.prompt_tokens[j]


sglang = Scheduler(
    "sglang",
    compose,
    params={
        "token_budget": Param(8192, 1, 131072, "tokens", Log(256, 16384)),  # chunked_prefill_size
        "max_num_seqs": Param(inf, 1, inf, "requests", Log(8, 1024)),
        "schedule_conservativeness": Param(1.0, 0, 10, "times the first ratio", Linear(0, 2)),
        "max_new_tokens": Param(4096, 1, 131072, "tokens", Log(64, 16384)),
        "longest_prefix_match": Param(0, 0, 1, "0: first come first served, 1: longest cached prefix first", (0, 1)),
    },
    memory={"request": ("key",), "engine": ("new_token_ratio", "started"), "heap": ("waiting",)},
    chunks_prefill=True,
    reference="SGLang (arXiv 2312.07104) and its scheduler: schedule_policy.py, schedule_batch.py",
)
