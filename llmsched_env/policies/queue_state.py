"""The engine as the index policy finds it: how long the step may be, and which prompts can be on time."""

from math import exp, inf, isnan, log
from typing import NamedTuple

from llmsched_env.policies.numbers import EXTRA, EXTRA_BY_LOAD, MARGIN
from llmsched_env.simulator.batch_time import batch_seconds
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.ordering import drop_late
from llmsched_env.simulator.primitives import is_decoding, is_pending, prefill_left
from llmsched_env.simulator.step_time import (
    attention_seconds,
    prompt_tokens_within,
    seconds_with_prompt,
    step_seconds,
)

KEY, DUE, SIZE, NEED, DROPPED, DECLINED, HOPELESS, SEEN = range(8)
MEMORY = {
    "request": ("key", "due", "size", "need", "dropped", "declined", "hopeless", "seen"),
    "heap": ("prompts",),
}
"""What schedulers that use these functions declare."""

_SHARE = 0.95  # of the tightest TPOT target that a step is taken to last when prefill is predicted
_LEAST_TOKENS = 128  # of prefill that a step is taken to hold at least then
_SOON, _UNPREDICTED = 16.0, 32.0  # fewest tokens that a request is taken to have before it; without a prediction


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
        seconds_per_token: of prefill in the longest batches that the TPOT targets and the numbers allow, with decodes.
        decoding: requests that decode.
        alive: those of them that are not lost.
        started: prompt tokens left of running requests.
        growth: tokens that decoding requests are predicted to generate still.
        outside: prompts, begun or waiting, outside the largest set that can be on time.
        empty: seconds of a batch of one token and no context.
        prefill_rate: the share of its time that the engine needs for the prompts that arrive.
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
    empty: float
    prefill_rate: float


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


@compiled(inline=True)
def empty_step(view):
    """Seconds of a batch of a single token without context."""
    return batch_seconds(view.law, 1.0, 0.0, 0.0, 0.0)


@compiled
def longest_with_decodes(numbers, least, empty):
    """Longest step with decodes, s, whatever targets allow; `least` and `empty` as in `QueueState`."""
    return least + numbers[EXTRA] * empty * exp(numbers[EXTRA_BY_LOAD] * log(least / empty))


@compiled
def survey(view, rate, sort, numbers):
    """Look at all requests once; with `sort`, find the largest set of prompts that can be on time.

    There, prefill is taken to last `MARGIN` times what the law says, decodes between included: further prompts may come
    on top. Of the `numbers` of the index policy, this one and those that bound the step are read. `rate` is the share
    of its time that the engine needs for the prompts that arrive, below 1. Leaves in request memory when each prompt,
    begun or waiting, is due, and the seconds of prefill that it needs.
    """
    req = view.req
    tightest, pace, even, spare = inf, inf, inf, inf
    decoding, alive, started, growth = 0, 0, 0, 0.0
    base = step_seconds(view)
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
    least, longest, empty = seconds_with_prompt(view, 1), _SHARE * tightest, empty_step(view)
    if decoding > 0:
        longest = min(longest, longest_with_decodes(numbers, least, empty))
    tokens = max(_LEAST_TOKENS, prompt_tokens_within(view, longest))
    per_token = seconds_with_prompt(view, tokens) / tokens
    for i in view.running:
        if is_pending(view, i):
            _set_times(view, i, base, per_token, numbers[MARGIN])
    for i in view.waiting:
        _set_times(view, i, base, per_token, numbers[MARGIN])
    outside = 0
    if sort and len(view.waiting) + started > 0:
        memory = view.mem.request
        outside = drop_late(view, view.clock, memory[:, DUE], memory[:, NEED], memory[:, DROPPED])
    return QueueState(
        tightest, pace, even, spare, base, least, tokens, per_token, decoding, alive, started, growth, outside,
        empty, rate,
    )  # fmt: skip


@compiled
def _set_times(view, i, base, per_token, margin):
    memory = view.mem.request
    memory[i, DUE] = _due(view, i, base)
    memory[i, SIZE] = per_token * max(1, prefill_left(view, i)) + attention_seconds(view, i)
    memory[i, NEED] = margin * memory[i, SIZE]


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
