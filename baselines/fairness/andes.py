"""Andes: serve the requests whose users would notice it most, by their quality of experience (arXiv 2404.16283)."""

from math import inf

from baselines.by_urgency import LIMITS, URGENCY, WORK_CONSERVING, serve_members
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.machine.compiled_law import seconds_with_host
from llmsched_env.simulator.memory import engine_memory, params_of, request_memory
from llmsched_env.simulator.ordering import heap_of_present, pop_least
from llmsched_env.simulator.primitives import prefill_left
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler
from llmsched_env.simulator.step_time import chunk_seconds

PARAMS = {
    **LIMITS,
    "ttft": Param(1.0, 0.0, inf, "s, expected where a request has no target"),
    "reading_speed": Param(4.8, 0.01, 10000, "tokens/s, expected where a request has no target"),
    "pressure": Param(0.9, 0, 1, "share of KV blocks in use from which on requests are chosen", Linear(0.5, 1)),
    "quantum": Param(50, 1, 2**40, "batches between choices", Log(5, 500)),
    "horizon": Param(20.0, 0.01, 1000, "s ahead for which the gain is predicted", Log(1, 200, whole=False)),
    "max_preemptions": Param(1, 0, inf, "of a request, after which it is served while it runs", (0, 1, 2, 4)),
}
REQUEST = (
    *URGENCY,
    "area",  # integral of `read` over time, token-seconds
    "read",  # tokens read
    "seen",  # tokens generated when readers were looked at last
    "gain",  # in quality of experience if the request is served
    "chosen",  # 1 if it has been chosen
)
ENGINE = (
    "since",  # s, when readers were looked at last
    "steps_left",  # batches before the next choice
)
params, own, memory = params_of(PARAMS), request_memory(REQUEST), engine_memory(ENGINE)


@compiled
def compose(view):
    """Under memory pressure requests are chosen anew every `quantum` batches; otherwise first come first served.

    A user expects the first token by its TTFT target and then reads at a constant speed, 1 / TPOT target. If a request
    has no target, a parameter stands for it. The quality of experience is the area under the tokens read over that
    under the tokens expected, at most 1. The chosen requests are those that gain most of it for the KV tokens they
    hold, by the end of the horizon, if they are served rather than paused: a knapsack, filled greedily for several
    batch sizes. A chosen request that waits takes the memory of running ones that are not chosen. A request preempted
    too often is served while it runs in any case. The others get the memory and budget that are left. The paper tries
    every batch size between the numbers of the longest and of the shortest requests that fit; here each size is 4/5 of
    the one before.
    """
    keep, m, p = own(view), memory(view), params(view)
    _follow_readers(view)
    if len(view.waiting) == 0 or view.kv.free >= (1.0 - p.pressure) * view.kv.total:
        m.steps_left = 0.0
        for i in view.running:
            keep.chosen[i] = 1.0
        for i in view.waiting:
            keep.chosen[i] = 0.0
    elif m.steps_left <= 0.0:
        m.steps_left = p.quantum
        _choose(view)
    for i in view.running:
        keep.urgency[i] = 0.0 if _has_suffered(view, i) else 2.0 - keep.chosen[i]
    for i in view.waiting:
        keep.urgency[i] = 3.0 - 2.0 * keep.chosen[i]
    wake = serve_members(view, True)
    if view.batch.counts.num_seqs > 0:
        m.steps_left -= 1.0
    return wake


@compiled(inline=True)
def _has_suffered(view, i):
    """Whether request `i` has been preempted as often as it may be."""
    return view.req.preemptions[i] >= params(view).max_preemptions


@compiled(inline=True)
def _reading_speed(view, i):
    """Tokens per second."""
    target = view.req.tpot_slo[i]
    return 1.0 / target if target < inf else params(view).reading_speed


@compiled
def read_on(read, there, speed, rate, seconds):
    """Tokens read after `seconds`, and their integral over that time.

    At first `read` of the `there` tokens generated so far have been read. Further tokens come at `rate` and are read at
    up to `speed`, both in tokens/s.
    """
    behind = min(seconds, (there - read) / (speed - rate)) if speed > rate else seconds
    area = read * behind + 0.5 * speed * behind * behind
    read += speed * behind
    left = seconds - behind
    return read + rate * left, area + read * left + 0.5 * rate * left * left


@compiled
def _follow_readers(view):
    m = memory(view)
    seconds = view.clock - m.since
    m.since = view.clock
    for i in view.running:
        _follow_reader(view, i, seconds)
    for i in view.waiting:
        _follow_reader(view, i, seconds)


@compiled(inline=True)
def _follow_reader(view, i, seconds):
    keep = own(view)
    keep.read[i], area = read_on(keep.read[i], keep.seen[i], _reading_speed(view, i), 0.0, seconds)
    keep.area[i] += area
    keep.seen[i] = view.req.generated[i]


@compiled
def _gain(view, i, step):
    """Quality of experience at the end of the horizon if served, a token every `step` seconds, less that if paused."""
    keep, p, speed = own(view), params(view), _reading_speed(view, i)
    horizon, target = p.horizon, view.req.ttft_slo[i]
    reading = view.clock + horizon - view.req.arrival[i] - (target if target < inf else p.ttft)
    expected = 0.5 * speed * max(0.0, reading) ** 2
    if expected == 0.0:
        return 0.0
    paused = read_on(keep.read[i], keep.seen[i], speed, 0.0, horizon)[1]
    left = prefill_left(view, i)
    delay = min(horizon, chunk_seconds(view, left, 0)) if left > 0 else 0.0
    read, before = read_on(keep.read[i], keep.seen[i], speed, 0.0, delay)
    served = before + read_on(read, keep.seen[i], speed, 1.0 / step, horizon - delay)[1]
    return min(1.0, (keep.area[i] + served) / expected) - min(1.0, (keep.area[i] + paused) / expected)


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
    capacity = view.kv.total * view.kv.block_size
    most = min(present, view.batch.counts.seq_limit)
    least = max(1, min(most, capacity // longest))
    size = max(least, min(most, capacity // shortest))
    best, best_size = -1.0, size
    while size >= least:
        gain = _fill(view, size, capacity, total / present)
        if gain > best:
            best, best_size = gain, size
        size = size * 4 // 5
    _fill(view, best_size, capacity, total / present)


@compiled
def _fill(view, size, capacity, context):
    """Choose up to `size` requests for `capacity` KV tokens, largest gain per KV token first; returns their gain."""
    keep, step = own(view), seconds_with_host(view.law, size, size * context, 0, 0, size, False)
    for i in view.running:
        _weigh(view, i, step)
        if _has_suffered(view, i):
            keep.chosen[i] = 1.0
            capacity -= _kv_tokens(view, i)
            size -= 1
    for i in view.waiting:
        _weigh(view, i, step)
    total, left = 0.0, heap_of_present(view, keep.urgency)
    while left > 0 and size > 0:
        i = pop_least(view, keep.urgency, left)
        left -= 1
        tokens = _kv_tokens(view, i)
        if keep.chosen[i] == 0.0 and tokens <= capacity:
            keep.chosen[i] = 1.0
            capacity -= tokens
            size -= 1
            total += keep.gain[i]
    return total


@compiled(inline=True)
def _weigh(view, i, step):
    keep = own(view)
    keep.chosen[i] = 0.0
    keep.gain[i] = _gain(view, i, step)
    keep.urgency[i] = -keep.gain[i] / _kv_tokens(view, i)


andes = register_scheduler(
    Scheduler(
        "andes",
        compose,
        params=PARAMS,
        memory={"request": REQUEST, "engine": ENGINE, "heap": ("order",)},
        reference="Andes, arXiv 2404.16283; horizon, quantum and pressure are ours",
        **WORK_CONSERVING,
    )
)
