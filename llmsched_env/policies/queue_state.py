"""What the index policy and the network that steers it look at before each batch."""

from math import exp, inf, isnan, log, log1p, sqrt
from typing import NamedTuple

from llmsched_env.simulator.batch_time import A_KV, A_STEP, A_TOK, A_TOK_OVER, B0
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.on_time import drop_late
from llmsched_env.simulator.primitives import is_decoding, is_pending, prefill_left
from llmsched_env.simulator.state import KV_BLOCK_SIZE, KV_FREE, KV_TOTAL
from llmsched_env.simulator.step_time import (
    attention_seconds,
    prompt_tokens_within,
    seconds_with_prompt,
    step_seconds,
)

KEY, DUE, SIZE, DROPPED, DECLINED, HOPELESS, SEEN = range(7)
MEMORY = {"request": ("key", "due", "size", "dropped", "declined", "hopeless", "seen"), "heap": ("prompts",)}
"""What schedulers that use these functions declare."""

_SHARE = 0.95  # of the tightest TPOT target that a step is taken to last when prefill is predicted
_LEAST_TOKENS = 128  # of prefill that a step is taken to hold at least then
_LONGEST = 60.0  # s; targets beyond count as that in features
_SOON, _UNPREDICTED = 16.0, 32.0  # fewest tokens that a request is taken to have before it; without a prediction
_MEMORY = 20.0  # s over which arrivals are averaged


class QueueState(NamedTuple):
    """The engine once the decodes are in the batch.

    A decoding request is lost if it missed its TTFT target, or cannot meet its TPOT target any more even if nothing is
    prefilled until its predicted end. Steps need not be short for those.

    Attributes:
        tightest: smallest TPOT target of a decoding request that is not lost, s; inf without one.
        pace: least time until such a request falls behind its TPOT target, of those that have not, s.
        even: longest step with which all such requests meet their targets if all their steps are so long, s.
        spare: seconds of prefill that all such requests can bear until their predicted ends, on top of `base` a step.
        base: seconds of the batch as it is.
        room: prompt tokens that a batch has room for within the TPOT targets.
        seconds_per_token: of prefill in batches as long as the TPOT targets allow, those of decodes included.
        decoding: requests that decode.
        alive: those of them that are not lost.
        started: prompt tokens left of running requests.
        growth: tokens that decoding requests are predicted to generate still.
        outside: prompts, begun or waiting, outside the largest set that can be on time.
    """

    tightest: float
    pace: float
    even: float
    spare: float
    base: float
    room: int
    seconds_per_token: float
    decoding: int
    alive: int
    started: int
    growth: float
    outside: int


@compiled
def expected_left(view, i):
    """Output tokens that request `i` is taken to have before it."""
    known, generated = view.req.known_output[i], float(view.req.generated[i])
    if known > 0.0:
        return max(_SOON, known - generated)
    return max(_UNPREDICTED, generated)


@compiled
def missed_first(view, i):
    """Whether request `i` has had its first token too late."""
    return view.req.first_token[i] > view.req.arrival[i] + view.req.ttft_slo[i]


@compiled
def survey(view, sort):
    """Look at all requests once; with `sort`, find the largest set of prompts that can be on time.

    Leaves in request memory when each prompt, begun or waiting, is due, and the seconds of prefill that it needs.
    """
    req, memory = view.req, view.mem.request
    tightest, pace, even, spare = inf, inf, inf, inf
    decoding, alive, started, growth = 0, 0, 0, 0.0
    base = step_seconds(view)
    for i in view.running:
        if is_decoding(view, i):
            decoding += 1
            left = expected_left(view, i)
            growth += left
            if missed_first(view, i):
                continue
            if not isnan(req.first_token[i]) and req.tpot_slo[i] < inf:
                ahead = req.first_token[i] + req.tpot_slo[i] * req.generated[i] - view.clock
                bearable = ahead + left * (req.tpot_slo[i] - base)
                if bearable <= 0.0:
                    continue
                spare = min(spare, bearable)
                even = min(even, base + bearable / left)
                if 0.0 < ahead < pace:
                    pace = ahead
            alive += 1
            tightest = min(tightest, req.tpot_slo[i])
        elif is_pending(view, i):
            started += prefill_left(view, i)
    even = min(even, tightest) if even == inf else even
    tokens = max(_LEAST_TOKENS, prompt_tokens_within(view, _SHARE * tightest))
    per_token = seconds_with_prompt(view, tokens) / tokens
    for i in view.running:
        if is_pending(view, i):
            memory[i, DUE], memory[i, SIZE] = _due(view, i, base), _prefill_seconds(view, i, per_token)
    for i in view.waiting:
        memory[i, DUE], memory[i, SIZE] = _due(view, i, base), _prefill_seconds(view, i, per_token)
    outside = 0
    if sort and len(view.waiting) + started > 0:
        outside = drop_late(view, view.clock, DUE, SIZE, DROPPED)
        for i in view.running:
            if is_pending(view, i):
                memory[i, SIZE] *= -1.0
        for i in view.waiting:
            memory[i, SIZE] *= -1.0
    return QueueState(
        tightest, pace, even, spare, base, tokens, per_token, decoding, alive, started, growth, outside,
    )  # fmt: skip


@compiled
def _prefill_seconds(view, i, per_token):
    return per_token * max(1, prefill_left(view, i)) + attention_seconds(view, i)


@compiled
def _due(view, i, base):
    """When the prefill of request `i` must be done: for its first token, or for the rest if it was preempted."""
    req = view.req
    if isnan(req.first_token[i]):
        return req.arrival[i] + req.ttft_slo[i]
    if missed_first(view, i) or req.tpot_slo[i] == inf:
        return inf if req.tpot_slo[i] == inf else -inf
    left = expected_left(view, i)
    return req.first_token[i] + req.tpot_slo[i] * (req.generated[i] + left) - base * left


NUM_FEATURES = 25
CLOCK, WEIGHT, PREFILL_RATE, DECODE_RATE, NUM_HISTORY = range(5)  # columns of engine memory


@compiled
def watch_arrivals(view, history):
    """Update f8[NUM_HISTORY]: seconds of prefill and of decodes that arrive each second, averages of the last while.

    A request's decodes count by its prediction, and only with what they add to batches that are run anyway.
    """
    req, law = view.req, view.law
    fade = exp((history[CLOCK] - view.clock) / _MEMORY)
    history[WEIGHT] = 1.0 - fade + fade * history[WEIGHT]
    prefill, decode = 0.0, 0.0
    per_token = law[A_STEP] / law[B0] + law[A_TOK] + law[A_TOK_OVER]
    for i in view.waiting:
        if view.mem.request[i, SEEN] == 0.0:
            view.mem.request[i, SEEN] = 1.0
            prefill += per_token * req.prompt_tokens[i]
            if req.known_output[i] > 0.0:
                known = req.known_output[i]
                decode += known * (law[A_TOK] + law[A_KV] * (req.prompt_tokens[i] + 0.5 * known))
    history[PREFILL_RATE] = fade * history[PREFILL_RATE] + prefill / _MEMORY
    history[DECODE_RATE] = fade * history[DECODE_RATE] + decode / _MEMORY
    history[CLOCK] = view.clock


@compiled
def features(view, state, history, x):
    """Write f8[NUM_FEATURES], each about within -1 to 1, to `x`."""
    req, n = view.req, len(view.waiting)
    work, late, oldest, lengths, squares, known = 0.0, 0, 1.0, 0.0, 0.0, 0.0
    target, farthest, slacks, relative = inf, 0.0, 0.0, 0.0
    for i in view.waiting:
        left = max(1, prefill_left(view, i))
        work += left
        length = log(float(left))
        lengths += length
        squares += length * length
        limit = req.ttft_slo[i]
        target = min(target, limit)
        if limit < inf:
            farthest = max(farthest, limit)
            slack = view.mem.request[i, DUE] - view.clock - view.mem.request[i, SIZE]
            if slack < 0.0:
                late += 1
            else:
                slacks += slack
                relative += min(1.0, slack / limit)
                oldest = min(oldest, slack / limit)
        if req.known_output[i] > 0.0:
            known += log(req.known_output[i])
    target, tightest, some = min(target, _LONGEST), min(state.tightest, 1.0), float(max(1, n))
    work *= state.seconds_per_token
    in_time = float(max(1, n - late))
    x[0] = log1p(n) / 4.0 - 0.5
    x[1] = 0.7 * (log1p(4.0 * work / target) - 1.0)
    x[2] = 2.0 * late / some - 0.5
    x[3] = log1p(state.decoding) / 4.0 - 0.7
    x[4] = 1.0 - view.kv[KV_FREE] / view.kv[KV_TOTAL]
    x[5] = 2.0 * min(2.0, state.base / tightest) - 0.5
    x[6] = 0.7 * (log1p(min(state.pace, 1e3) / tightest) - 1.0)
    x[7] = 2.0 * oldest - 1.0
    x[8] = 2.0 * state.outside / some - 0.5
    x[9] = (lengths / some - 6.0) / 2.0
    x[10] = (log1p(state.started) - 3.0) / 4.0
    x[11] = log(target) / 2.0
    x[12] = log(tightest) / 2.0 + 1.0
    x[13] = (known / some - 4.0) / 2.0
    x[14] = min(3.0, 2.0 * history[PREFILL_RATE] / max(0.1, history[WEIGHT])) - 1.0
    x[15] = min(3.0, 2.0 * history[DECODE_RATE] / max(0.1, history[WEIGHT])) - 1.0
    x[16] = 2.0 * state.alive / max(1, state.decoding) - 1.0
    x[17] = sqrt(max(0.0, squares / some - (lengths / some) ** 2)) - 1.0
    x[18] = log(max(1.0, min(farthest, _LONGEST) / target)) / 3.0
    x[19] = log(max(0.1, min(10.0, state.even / tightest)))
    x[20] = 0.5 * (log1p(min(state.spare, 1e3) / tightest) - 2.0)
    x[21] = log1p(state.growth / max(1.0, view.kv[KV_FREE] * view.kv[KV_BLOCK_SIZE])) - 0.5
    x[22] = 2.0 * relative / in_time - 1.0
    x[23] = 0.7 * (log1p(4.0 * work * in_time / max(0.01, slacks)) - 1.0)
    x[24] = log(float(state.room)) / 3.0 - 2.0
