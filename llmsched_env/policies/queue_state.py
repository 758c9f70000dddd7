"""What the index policy and the network that steers it look at before each batch."""

from math import exp, inf, isnan, log, log1p, sqrt
from typing import NamedTuple

from llmsched_env.simulator.batch_time import A_ATTN, A_KV, A_STEP, A_TOK, A_TOK_OVER, B0, batch_seconds
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
_MEMORY, _LATELY = 20.0, 100.0  # s, and requests, over which arrivals are averaged


class QueueState(NamedTuple):
    """The engine once the decodes are in the batch.

    A decoding request is lost if it missed its TTFT target, or cannot meet its TPOT target any more even if nothing is
    prefilled until its predicted end. Steps need not be short for those.

    Attributes:
        tightest: smallest TPOT target of a decoding request that is not lost, s; inf without one.
        pace: least time until such a request falls behind its TPOT target, of those that have not, s.
        even: longest step with which all such requests meet their targets if all their steps are so long, s.
        spare: seconds of prefill that all such requests can bear at once, on top of `base` a step and of the prefill
            that is to be expected until their predicted ends; inf without one.
        base: seconds of the batch as it is.
        least: seconds of the batch with a single prompt token.
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
    least: float
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
def survey(view, history, sort, margin):
    """Look at all requests once; with `sort`, find the largest set of prompts that can be on time.

    There, prefill is taken to last `margin` > 0 times what the law says: decodes come on top, and further prompts.
    `history` is f8[NUM_HISTORY], from which the prefill to come is taken. Leaves in request memory when each prompt,
    begun or waiting, is due, and the seconds of prefill that it needs.
    """
    req, memory = view.req, view.mem.request
    tightest, pace, even, spare = inf, inf, inf, inf
    decoding, alive, started, growth = 0, 0, 0, 0.0
    base, rate = step_seconds(view), prefill_rate(history)
    expected = rate / (1.0 - rate) * base  # seconds of prefill for each step of decodes
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
                spare = min(spare, max(0.0, bearable - left * expected))
                even = min(even, base + bearable / left)
                if 0.0 < ahead < pace:
                    pace = ahead
            alive += 1
            tightest = min(tightest, req.tpot_slo[i])
        elif is_pending(view, i):
            started += prefill_left(view, i)
    even = min(even, tightest) if even == inf else even
    tokens = max(_LEAST_TOKENS, prompt_tokens_within(view, _SHARE * tightest))
    least, per_token = seconds_with_prompt(view, 1), seconds_with_prompt(view, tokens) / tokens
    for i in view.running:
        if is_pending(view, i):
            memory[i, DUE], memory[i, SIZE] = _due(view, i, base), _prefill_seconds(view, i, per_token)
    for i in view.waiting:
        memory[i, DUE], memory[i, SIZE] = _due(view, i, base), _prefill_seconds(view, i, per_token)
    outside = 0
    if sort and len(view.waiting) + started > 0:
        _scale_sizes(view, margin)
        outside = drop_late(view, view.clock, DUE, SIZE, DROPPED)
        _scale_sizes(view, -1.0 / margin)  # they were left negative
    return QueueState(
        tightest, pace, even, spare, base, least, tokens, per_token, decoding, alive, started, growth, outside,
    )  # fmt: skip


@compiled
def _scale_sizes(view, factor):
    for i in view.running:
        if is_pending(view, i):
            view.mem.request[i, SIZE] *= factor
    for i in view.waiting:
        view.mem.request[i, SIZE] *= factor


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


NUM_FEATURES = 32
CLOCK, WEIGHT, PREFILL_RATE, DECODE_RATE, SEEN_REQUESTS, PROMPT, OUTPUT, FIRST, PACE, NUM_HISTORY = range(10)
HISTORY = ("clock", "weight", "prefill_rate", "decode_rate", "seen_requests", "prompt", "output", "first", "pace")
"""Columns of engine memory, and their names."""


@compiled
def watch_arrivals(view, history):
    """Update f8[NUM_HISTORY]: what has arrived lately.

    Seconds of prefill and of decodes that arrive each second, averages of the last while: a request's decodes count by
    its prediction, and only with what they add to batches that are run anyway. And, of the last requests, means of the
    logarithms of prompt tokens, predicted output tokens, and of both targets over what the request would need alone.
    """
    req, law = view.req, view.law
    fade = exp((history[CLOCK] - view.clock) / _MEMORY)
    history[WEIGHT] = 1.0 - fade + fade * history[WEIGHT]
    prefill, decode = 0.0, 0.0
    per_token = law[A_STEP] / law[B0] + law[A_TOK] + law[A_TOK_OVER]
    alone = batch_seconds(law, 1.0, 0.0, 0.0, 0.0)
    for i in view.waiting:
        if view.mem.request[i, SEEN] == 0.0:
            view.mem.request[i, SEEN] = 1.0
            prompt, known = float(req.prompt_tokens[i]), req.known_output[i]
            seconds = per_token * prompt + law[A_ATTN] * 0.5 * prompt * prompt
            prefill += seconds
            history[SEEN_REQUESTS] += 1.0
            rate = 1.0 / min(_LATELY, history[SEEN_REQUESTS])
            history[PROMPT] += rate * (log(prompt) - history[PROMPT])
            if known > 0.0:
                decode += known * (law[A_TOK] + law[A_KV] * (prompt + 0.5 * known))
                history[OUTPUT] += rate * (log(known) - history[OUTPUT])
            first = min(req.ttft_slo[i], _LONGEST) / (alone + seconds)
            history[FIRST] += rate * (log(max(0.1, first)) - history[FIRST])
            history[PACE] += rate * (log(max(0.1, min(req.tpot_slo[i], 1.0) / alone)) - history[PACE])
    history[PREFILL_RATE] = fade * history[PREFILL_RATE] + prefill / _MEMORY
    history[DECODE_RATE] = fade * history[DECODE_RATE] + decode / _MEMORY
    history[CLOCK] = view.clock


@compiled
def prefill_rate(history):
    """The share of its time that the engine needs for the prompts that arrive, from 0.03 to 0.95."""
    return max(0.03, min(0.95, history[PREFILL_RATE] / max(0.1, history[WEIGHT])))


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
    x[4] = 1.0 - 4.0 * view.kv[KV_FREE] / view.kv[KV_TOTAL]
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
    rate = prefill_rate(history)
    x[25] = 0.5 * log(rate / (1.0 - rate))
    x[26] = 0.4 * log(0.1 + (work + state.started * state.seconds_per_token) / state.least) - 1.0
    x[27] = 0.5 * (log(max(1.0, state.growth) / max(1, state.decoding)) - 5.0)
    x[28] = 0.4 * (history[PROMPT] - 6.5)
    x[29] = 0.5 * (history[FIRST] - 3.0)
    x[30] = history[PACE] - 1.0
    x[31] = 0.5 * (history[OUTPUT] - 4.5)
