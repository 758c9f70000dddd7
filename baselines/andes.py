"""Andes: who is served is chosen by what users would notice, their quality of experience (arXiv 2404.16283)."""

from math import inf

from baselines.in_order import LIMITS, NUM_LIMITS, URGENCY, WORK_CONSERVING, serve_members
from llmsched_env.simulator.batch_time import seconds_with_host
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.ordering import heap_of_present, pop_least
from llmsched_env.simulator.primitives import prefill_left
from llmsched_env.simulator.rule import Linear, Log, Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.step_time import chunk_seconds

TTFT, SPEED, PRESSURE, QUANTUM, HORIZON, MOST_PREEMPTIONS = range(NUM_LIMITS, NUM_LIMITS + 6)
AREA, READ, SEEN, GAIN, CHOSEN = range(1, 6)  # columns of request memory: integral of READ, token-seconds; tokens read;
# tokens generated at SINCE; gain in quality of experience if it is served; 1 if it has been chosen
SINCE, STEPS_LEFT = range(2)  # of engine memory: when readers were looked at last, s; batches before the next choice


@compiled
def compose(view):
    """Under pressure for memory the requests to serve are chosen anew every `quantum` batches; else first come first.

    A user expects the first token after its TTFT target and then reads at a constant speed, 1 / TPOT target; where a
    request has no target, a parameter stands for it. The quality of experience is the area under the tokens read over
    that under the tokens expected, at most 1. Chosen are those that gain most of it for the KV tokens they hold, by the
    end of the horizon, if they are served rather than paused: a knapsack, filled greedily for several batch sizes. A
    chosen request that waits takes the memory of running ones that are not chosen; one preempted too often is served
    in any case while it runs. What memory and budget are left serve the others. The paper looks at every batch size
    between the numbers of the longest and of the shortest requests that fit, here each is 4/5 of the one before.
    """
    request, engine = view.mem.request, view.mem.engine
    _follow_readers(view)
    if len(view.waiting) == 0 or view.kv.free >= (1.0 - view.mem.params[PRESSURE]) * view.kv.total:
        engine[STEPS_LEFT] = 0.0
        for i in view.running:
            request[i, CHOSEN] = 1.0
        for i in view.waiting:
            request[i, CHOSEN] = 0.0
    elif engine[STEPS_LEFT] <= 0.0:
        engine[STEPS_LEFT] = view.mem.params[QUANTUM]
        _choose(view)
    for i in view.running:
        request[i, URGENCY] = 0.0 if _has_suffered(view, i) else 2.0 - request[i, CHOSEN]
    for i in view.waiting:
        request[i, URGENCY] = 3.0 - 2.0 * request[i, CHOSEN]
    wake = serve_members(view, True)
    if view.batch.counts.num_seqs > 0:
        engine[STEPS_LEFT] -= 1.0
    return wake


@compiled(inline=True)
def _has_suffered(view, i):
    return view.req.preemptions[i] >= view.mem.params[MOST_PREEMPTIONS]


@compiled(inline=True)
def _reading_speed(view, i):
    """Tokens per second."""
    target = view.req.tpot_slo[i]
    return 1.0 / target if target < inf else view.mem.params[SPEED]


@compiled
def read_on(read, there, speed, rate, seconds):
    """Tokens read after so many seconds, and their integral over them.

    `read` of the tokens that are `there` have been read, and further ones come at `rate`, all in tokens and 1/s.
    """
    behind = min(seconds, (there - read) / (speed - rate)) if speed > rate else seconds
    area = read * behind + 0.5 * speed * behind * behind
    read += speed * behind
    left = seconds - behind
    return read + rate * left, area + read * left + 0.5 * rate * left * left


@compiled
def _follow_readers(view):
    seconds = view.clock - view.mem.engine[SINCE]
    view.mem.engine[SINCE] = view.clock
    for i in view.running:
        _follow_reader(view, i, seconds)
    for i in view.waiting:
        _follow_reader(view, i, seconds)


@compiled(inline=True)
def _follow_reader(view, i, seconds):
    memory = view.mem.request
    memory[i, READ], area = read_on(memory[i, READ], memory[i, SEEN], _reading_speed(view, i), 0.0, seconds)
    memory[i, AREA] += area
    memory[i, SEEN] = view.req.generated[i]


@compiled
def _gain(view, i, step):
    """Quality of experience at the end of the horizon if served, a token every `step` seconds, less that if paused."""
    memory, horizon, speed = view.mem.request, view.mem.params[HORIZON], _reading_speed(view, i)
    target = view.req.ttft_slo[i]
    reading = view.clock + horizon - view.req.arrival[i] - (target if target < inf else view.mem.params[TTFT])
    expected = 0.5 * speed * max(0.0, reading) ** 2
    if expected == 0.0:
        return 0.0
    paused = read_on(memory[i, READ], memory[i, SEEN], speed, 0.0, horizon)[1]
    left = prefill_left(view, i)
    delay = min(horizon, chunk_seconds(view, left, 0)) if left > 0 else 0.0
    read, before = read_on(memory[i, READ], memory[i, SEEN], speed, 0.0, delay)
    served = before + read_on(read, memory[i, SEEN], speed, 1.0 / step, horizon - delay)[1]
    return min(1.0, (memory[i, AREA] + served) / expected) - min(1.0, (memory[i, AREA] + paused) / expected)


@compiled(inline=True)
def _kv_tokens(view, i):
    return max(view.req.computed[i], view.req.prefill_tokens[i]) + 1


@compiled
def _choose(view):
    """Mark the chosen requests of the batch size with the largest total gain."""
    longest, shortest, total, present = 1, 2**40, 0, len(view.running) + len(view.waiting)
    for i in view.running:
        tokens = _kv_tokens(view, i)
        longest, shortest, total = max(longest, tokens), min(shortest, tokens), total + tokens
    for i in view.waiting:
        tokens = _kv_tokens(view, i)
        longest, shortest, total = max(longest, tokens), min(shortest, tokens), total + tokens
    memory = view.kv.total * view.kv.block_size
    most = min(present, view.batch.counts.seq_limit)
    least = max(1, min(most, memory // longest))
    size = max(least, min(most, memory // shortest))
    best, best_size = -1.0, size
    while size >= least:
        gain = _fill(view, size, memory, total / present)
        if gain > best:
            best, best_size = gain, size
        size = size * 4 // 5
    _fill(view, best_size, memory, total / present)


@compiled
def _fill(view, size, memory, context):
    """Choose up to `size` requests for `memory` KV tokens, largest gain per KV token first; returns their gains."""
    request, step = view.mem.request, seconds_with_host(view.law, size, size * context, 0, 0, size)
    for i in view.running:
        _weigh(view, i, step)
        if _has_suffered(view, i):
            request[i, CHOSEN] = 1.0
            memory -= _kv_tokens(view, i)
            size -= 1
    for i in view.waiting:
        _weigh(view, i, step)
    total, left = 0.0, heap_of_present(view, view.mem.request[:, URGENCY])
    while left > 0 and size > 0:
        i = pop_least(view, view.mem.request[:, URGENCY], left)
        left -= 1
        tokens = _kv_tokens(view, i)
        if request[i, CHOSEN] == 0.0 and tokens <= memory:
            request[i, CHOSEN] = 1.0
            memory -= tokens
            size -= 1
            total += request[i, GAIN]
    return total


@compiled(inline=True)
def _weigh(view, i, step):
    memory = view.mem.request
    memory[i, CHOSEN] = 0.0
    memory[i, GAIN] = _gain(view, i, step)
    memory[i, URGENCY] = -memory[i, GAIN] / _kv_tokens(view, i)


andes = Scheduler(
    "andes",
    compose,
    params={
        **LIMITS,
        "ttft": Param(1.0, 0.0, inf, "s, expected where a request has no target"),
        "reading_speed": Param(4.8, 0.01, 10000, "tokens/s, expected where a request has no target"),
        "pressure": Param(0.9, 0, 1, "share of KV blocks in use from which on requests are chosen", Linear(0.5, 1)),
        "quantum": Param(50, 1, 2**40, "batches between choices", Log(5, 500)),
        "horizon": Param(20.0, 0.01, 1000, "s ahead for which the gain is predicted", Log(1, 200, whole=False)),
        "max_preemptions": Param(1, 0, inf, "of a request, after which it is served while it runs", (0, 1, 2, 4)),
    },
    memory={
        "request": ("urgency", "area", "read", "seen", "gain", "chosen"),
        "engine": ("since", "steps_left"),
        "heap": ("order",),
    },
    reference="Andes, arXiv 2404.16283; horizon, quantum and pressure are ours",
    **WORK_CONSERVING,
)
