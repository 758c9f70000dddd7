"""What an engine remembers of the last while: which requests arrived."""

from math import exp, floor, inf, log, log2

from llmsched_env.policies.queue_state import SEEN, empty_step
from llmsched_env.simulator.compiled import compiled

_MEMORY, _LATELY = 20.0, 100.0  # s, and requests, over which arrivals are averaged
LONGEST = 60.0  # s; TTFT targets beyond count as that
_BINS, _LEAST_PATIENCE = 9, 0.05  # arrivals are counted by patience: up to so many seconds, and then twice as many each

CLOCK, WEIGHT, PREFILL_RATE, DECODE_RATE, SEEN_REQUESTS, PROMPT, OUTPUT, FIRST, PACE, PATIENCE = range(10)
NUM_HISTORY = PATIENCE + _BINS
HISTORY = (
    "clock", "weight", "prefill_rate", "decode_rate", "seen_requests", "prompt", "output", "first", "pace",
    *(f"patience_{k}" for k in range(_BINS)),
)  # fmt: skip
"""Columns of engine memory, and their names."""


@compiled
def watch_arrivals(view, history):
    """Update f8[NUM_HISTORY]: what has arrived lately.

    Seconds of prefill and of decodes that arrive each second, averages of the last while: a request's decodes count by
    its prediction, and only with what they add to batches that are run anyway. And, of the last requests, means of the
    logarithms of prompt tokens, predicted output tokens, and of both targets over what the request would need alone.
    And requests each second by their patience: for how long prefill of one may wait without missing its TTFT target.
    """
    req, law = view.req, view.law
    fade = exp((history[CLOCK] - view.clock) / _MEMORY)
    history[WEIGHT] = 1.0 - fade + fade * history[WEIGHT]
    for k in range(PATIENCE, NUM_HISTORY):
        history[k] *= fade
    prefill, decode = 0.0, 0.0
    per_token = law.a_step / law.b0 + law.a_tok + law.a_tok_over
    alone = empty_step(view)
    for i in view.waiting:
        if view.mem.request[i, SEEN] == 0.0:
            view.mem.request[i, SEEN] = 1.0
            prompt, known = float(req.prompt_tokens[i]), req.known_output[i]
            seconds = per_token * prompt + law.a_attn * 0.5 * prompt * prompt
            prefill += seconds
            history[PATIENCE + _bin(req.ttft_slo[i] - seconds - alone)] += 1.0 / _MEMORY
            history[SEEN_REQUESTS] += 1.0
            rate = 1.0 / min(_LATELY, history[SEEN_REQUESTS])
            history[PROMPT] += rate * (log(prompt) - history[PROMPT])
            if known > 0.0:
                decode += known * (law.a_tok + law.a_kv * (prompt + 0.5 * known))
                history[OUTPUT] += rate * (log(known) - history[OUTPUT])
            first = min(req.ttft_slo[i], LONGEST) / (alone + seconds)
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
def _bin(patience):
    if patience <= _LEAST_PATIENCE:
        return 0
    return int(min(_BINS - 1.0, 1.0 + floor(log2(min(patience, 1e6) / _LEAST_PATIENCE))))


@compiled
def longest_for(history, count):
    """Seconds for which the engine may be busy with others, if `count` >= 0 requests are expected to be late for it.

    The inverse of `victims`; inf where hardly anybody comes.
    """
    weight = max(0.1, history[WEIGHT])
    rate, seconds, expected, patience = 0.0, 0.0, 0.0, 0.0
    for k in range(_BINS):
        if expected + rate * (patience - seconds) > count * weight:
            break
        expected += rate * (patience - seconds)
        seconds = patience
        rate += history[PATIENCE + k]
        patience = _LEAST_PATIENCE if k == 0 else 2.0 * patience
    return seconds + (count * weight - expected) / rate if rate > 0.0 else inf


@compiled
def victims(history, seconds):
    """How many requests can be expected to arrive within so many `seconds`, and to be late if they wait till the end.

    Those are what it costs to begin a prompt of so many seconds if it cannot be interrupted.
    """
    expected, patience = 0.0, 0.0
    for k in range(_BINS):
        if seconds <= patience:
            break
        expected += history[PATIENCE + k] * (seconds - patience)
        patience = _LEAST_PATIENCE if k == 0 else 2.0 * patience
    return expected / max(0.1, history[WEIGHT])
