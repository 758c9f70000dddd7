"""How long a batch takes by a law: what a scheduler can predict that has profiled its machine.

`view.law` holds the law that schedulers believe: deployed ones fit it offline. The engine follows it exactly unless
`EngineConfig` says otherwise (`step_noise`, `believed_batch_time`), so a scheduler that doubts its profile has to leave
a margin of its own.
"""

from math import cos, exp, inf, log, pi, sqrt

from llmsched_env.compiled import compiled
from llmsched_env.machine.compiled_law import seconds_with_host
from llmsched_env.simulator.kv_cache import cached_tokens
from llmsched_env.simulator.memory import draw
from llmsched_env.simulator.numbers import exists
from llmsched_env.simulator.primitives import prefill_left, tokens_left


@compiled(inline=True)
def seconds_of(law, counts):
    """Seconds of a batch with these `counts`, host and swapping included."""
    seconds = seconds_with_host(
        law,
        counts.tokens,
        counts.decode_kv_tokens,
        counts.prefill_attn_pairs,
        counts.prefill_context_tokens,
        counts.num_seqs,
        counts.prefill_tokens > 0,
    )
    return seconds + law.swap_block * counts.swapped


@compiled
def noise_factor(noise, rng):
    """The next factor of mean 1 on step times: lognormal, `noise` is the standard deviation of its logarithm."""
    normal = sqrt(-2.0 * log(1.0 - draw(rng))) * cos(2.0 * pi * draw(rng))  # Box and Muller (1958)
    return exp(noise * normal - 0.5 * noise * noise)


@compiled
def step_seconds(view):
    """Seconds that the batch under construction will take; 0 while it is empty."""
    return seconds_of(view.law, view.batch.counts) if view.batch.counts.num_seqs > 0 else 0.0


@compiled
def step_seconds_with(view, i, n):
    """Seconds that the batch would take with `n` > 0 more tokens of request `i`: a decode token, or of its prompt.

    inf if there is no request `i`.
    """
    law, counts, req = view.law, view.batch.counts, view.req
    if not exists(view, i):
        return inf
    scheduled = req.scheduled[i]
    context = req.computed[i] + scheduled + cached_tokens(view, i)
    decodes = req.computed[i] >= req.prefill_tokens[i]
    pairs = 0 if decodes else n * context + n * (n + 1) // 2
    seconds = seconds_with_host(
        law,
        counts.tokens + n,
        counts.decode_kv_tokens + (context if decodes else 0),
        counts.prefill_attn_pairs + pairs,
        counts.prefill_context_tokens + (context if scheduled == 0 and not decodes else 0),
        counts.num_seqs + (1 if scheduled == 0 else 0),
        counts.prefill_tokens > 0 or not decodes,
    )
    return seconds + law.swap_block * counts.swapped


@compiled(inline=True)
def chunk_seconds(view, n, before):
    """Seconds of a batch of nothing but `n` prompt tokens after `before` others of the same request."""
    return seconds_with_host(view.law, n, 0, n * before + n * (n + 1) // 2, before, 1, True)


@compiled
def seconds_with_prompt(view, tokens):
    """Seconds that the batch would take with `tokens` tokens of another prompt, its attention left out."""
    law, counts = view.law, view.batch.counts
    return seconds_with_host(law, counts.tokens + tokens, counts.decode_kv_tokens, 0, 0, counts.num_seqs + 1, True)


@compiled
def prompt_tokens_within(view, seconds):
    """The most tokens of a prompt with which the batch lasts no longer than `seconds`, its attention left out."""
    low, high = 0, tokens_left(view)
    if seconds_with_prompt(view, high) <= seconds:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if seconds_with_prompt(view, middle) <= seconds:
            low = middle
        else:
            high = middle
    return low


@compiled
def attention_seconds(view, i):
    """What the prefill left of request `i` adds to batches by its attention, in seconds."""
    if not exists(view, i):
        return 0.0
    n, before = prefill_left(view, i), view.req.computed[i] + cached_tokens(view, i)
    return view.law.a_attn * (n * before + n * (n + 1) // 2)


@compiled
def chunk_within(view, i, limit, seconds):
    """The longest chunk of request `i`'s prompt, at most `limit`, with which the batch lasts no longer than `seconds`.

    0 if there is none; the token budget counts as well, memory does not.
    """
    low, high = 0, min(min(limit, prefill_left(view, i)), tokens_left(view))
    if high > 0 and step_seconds_with(view, i, high) <= seconds:
        return high
    while high - low > 1:  # a chunk of `low` fits (or is 0), one of `high` does not
        middle = (low + high) // 2
        if step_seconds_with(view, i, middle) <= seconds:
            low = middle
        else:
            high = middle
    return low
