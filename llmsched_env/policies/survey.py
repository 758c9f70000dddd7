"""The engine as the index policy finds it: how long the step may be, and which prompts can be on time."""

from math import exp, inf, isnan, log
from typing import NamedTuple

from llmsched_env.compiled import compiled
from llmsched_env.machine.compiled_law import batch_seconds
from llmsched_env.simulator.memory import request_memory
from llmsched_env.simulator.ordering import drop_late
from llmsched_env.simulator.primitives import is_decoding, is_pending, prefill_left
from llmsched_env.simulator.step_time import (
    attention_seconds,
    prompt_tokens_within,
    seconds_with_prompt,
    step_seconds,
)

REQUEST_MEMORY = (
    "key",  # its place in the queue: the least goes first
    "due",  # s: when its prefill must be done
    "size",  # s of prefill that it needs
    "need",  # that times the margin, negative once `drop_late` has read it
    "dropped",  # 1: outside the largest set of prompts that can be on time
    "declined",  # 1: once taken to be late, for good
    "hopeless",  # 1: taken to be late now
    "seen",  # 1: counted among the arrivals
)
MEMORY = {"request": REQUEST_MEMORY, "heap": ("prompts",)}
"""What schedulers that use these functions declare."""
of_requests = request_memory(REQUEST_MEMORY)

_SHARE = 0.95  # of the tightest TPOT target that a step is assumed to last when prefill is predicted
_LEAST_TOKENS = 128  # of prefill that such a step is assumed to hold at least
_SOON, _UNPREDICTED = 16.0, 32.0  # fewest output tokens assumed to be left; without a prediction


class EngineState(NamedTuple):
    """The engine once the decodes are in the batch.

    A decoding request is lost if it missed its TTFT target, or cannot meet its TPOT target any more even if nothing is
    prefilled until its predicted end. Steps need not be short for lost requests. The others are on track.
    """

    tightest_tpot: float  # s: least TPOT target of a request on track; inf without one
    least_lead: float  # s until the first request on track falls behind its TPOT target, of those that have not
    even_step: float  # s: longest step with which all requests on track meet their targets if all steps last as long
    # Prefill (s) that all requests on track can bear at once, beyond the prefill that is expected until their predicted
    # ends; inf without such a request:
    bearable_prefill: float
    decode_step: float  # s of the batch as it is: decodes only
    least_step: float  # s of the batch with a single prompt token
    prompt_room: int  # prompt tokens that the batch has room for within the TPOT targets
    seconds_per_token: float  # of prefill in the longest batches that TPOT targets and numbers allow, with decodes
    decoding: int  # requests that decode
    on_track: int  # those of them that are not lost
    begun_tokens: int  # prompt tokens left of running requests
    growth: float  # tokens that decoding requests are still predicted to generate
    outside: int  # prompts, begun or waiting, outside the largest set that can be on time
    empty_step: float  # s of a batch of one token without context
    prefill_rate: float  # share of its time that the engine needs for the prompts that arrive


@compiled
def output_left(view, i):
    """Output tokens that request `i` is assumed to have left."""
    known, generated = view.req.known_output[i], float(view.req.generated[i])
    if known > 0.0:
        return max(_SOON, known - generated)
    return max(_UNPREDICTED, generated)


@compiled
def missed_first(view, i):
    """Whether the first token of request `i` was late."""
    return view.req.first_token[i] > view.req.arrival[i] + view.req.ttft_slo[i]


@compiled(inline=True)
def empty_step_seconds(view):
    """Seconds of a batch of a single token without context."""
    return batch_seconds(view.law, 1.0, 0.0, 0.0, 0.0, 1.0, False)


@compiled
def longest_with_decodes(numbers, least_step, empty_step):
    """Longest step with decodes that the numbers allow, s, apart from targets; the others as in `EngineState`."""
    return least_step + numbers.extra * empty_step * exp(numbers.extra_by_load * log(least_step / empty_step))


@compiled
def survey(view, rate, finds_outside, numbers):
    """Look at all requests once, and leave in request memory when each prompt is due and how long its prefill takes.

    Args:
        view: the view; its batch already holds the decodes.
        rate: the share of its time that the engine needs for the prompts that arrive, below 1.
        finds_outside: whether to find the largest set of prompts that can be on time. There, prefill is assumed to last
            `margin` times what the law says, decodes included, as more prompts may come.
        numbers: of the index policy; `margin` and those that bound the step are read.

    Returns:
        `EngineState`.
    """
    req, own = view.req, of_requests(view)
    tightest, least_lead, even_step, bearable_prefill = inf, inf, inf, inf
    decoding, on_track, begun_tokens, growth = 0, 0, 0, 0.0
    decode_step = step_seconds(view)
    expected = rate / (1.0 - rate) * decode_step  # seconds of prefill for each step of decodes
    for i in view.running:
        if is_decoding(view, i):
            decoding += 1
            left = output_left(view, i)
            growth += left
            if missed_first(view, i):
                continue
            if not isnan(req.first_token[i]) and req.tpot_slo[i] < inf:
                lead = req.first_token[i] + req.tpot_slo[i] * req.generated[i] - view.clock
                bearable = lead + left * (req.tpot_slo[i] - decode_step)
                if bearable <= 0.0:
                    continue
                bearable_prefill = min(bearable_prefill, max(0.0, bearable - left * expected))
                even_step = min(even_step, decode_step + bearable / left)
                if 0.0 < lead < least_lead:
                    least_lead = lead
            on_track += 1
            tightest = min(tightest, req.tpot_slo[i])
        elif is_pending(view, i):
            begun_tokens += prefill_left(view, i)
    even_step = min(even_step, tightest) if even_step == inf else even_step
    least_step, longest, empty_step = seconds_with_prompt(view, 1), _SHARE * tightest, empty_step_seconds(view)
    if decoding > 0:
        longest = min(longest, longest_with_decodes(numbers, least_step, empty_step))
    room = max(_LEAST_TOKENS, prompt_tokens_within(view, longest))
    per_token = seconds_with_prompt(view, room) / room
    for i in view.running:
        if is_pending(view, i):
            _set_times(view, own, i, decode_step, per_token, numbers.margin)
    for i in view.waiting:
        _set_times(view, own, i, decode_step, per_token, numbers.margin)
    outside = 0
    if finds_outside and len(view.waiting) + begun_tokens > 0:
        outside = drop_late(view, view.clock, own.due, own.need, own.dropped)
    return EngineState(
        tightest_tpot=tightest,
        least_lead=least_lead,
        even_step=even_step,
        bearable_prefill=bearable_prefill,
        decode_step=decode_step,
        least_step=least_step,
        prompt_room=room,
        seconds_per_token=per_token,
        decoding=decoding,
        on_track=on_track,
        begun_tokens=begun_tokens,
        growth=growth,
        outside=outside,
        empty_step=empty_step,
        prefill_rate=rate,
    )


@compiled
def _set_times(view, own, i, decode_step, per_token, margin):
    own.due[i] = _due(view, i, decode_step)
    own.size[i] = per_token * max(1, prefill_left(view, i)) + attention_seconds(view, i)
    own.need[i] = margin * own.size[i]


@compiled
def _due(view, i, decode_step):
    """When the prefill of request `i` must be done: for its first token, or for the rest if it was preempted."""
    req = view.req
    if isnan(req.first_token[i]):
        return req.arrival[i] + req.ttft_slo[i]
    if missed_first(view, i) or req.tpot_slo[i] == inf:
        return inf if req.tpot_slo[i] == inf else -inf
    left = output_left(view, i)
    return req.first_token[i] + req.tpot_slo[i] * (req.generated[i] + left) - decode_step * left
