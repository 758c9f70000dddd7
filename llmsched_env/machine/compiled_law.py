"""Seconds of a batch in compiled code; `batch_time` itself, and with it every configuration, does without numba."""

from llmsched_env.compiled import compiled
from llmsched_env.machine.batch_time import law_seconds

_linear = compiled(law_seconds)


@compiled
def batch_seconds(law, tokens, decode_kv_tokens, prefill_attn_pairs, prefill_context_tokens, requests, holds_prefill):
    """Seconds of a batch with `requests` requests on the GPU alone; `holds_prefill`: it does not only decode."""
    if law.decode_knots == 0:
        return _linear(law, tokens, decode_kv_tokens, prefill_attn_pairs, prefill_context_tokens)
    if not holds_prefill:
        table = _at(law.decode_tokens, law.decode_seconds, law.decode_slope, law.decode_knots, tokens)
        return table + law.a_kv * decode_kv_tokens
    table = _at(law.mixed_tokens, law.mixed_seconds, law.mixed_slope, law.mixed_knots, tokens)
    table += law.a_seq * requests + law.a_kv_mixed * decode_kv_tokens
    return table + law.a_attn * prefill_attn_pairs + law.a_ctx * prefill_context_tokens


@compiled
def seconds_with_host(
    law, tokens, decode_kv_tokens, prefill_attn_pairs, prefill_context_tokens, requests, holds_prefill
):
    """Seconds of a batch with `requests` requests, time of the host included."""
    seconds = batch_seconds(
        law, tokens, decode_kv_tokens, prefill_attn_pairs, prefill_context_tokens, requests, holds_prefill
    )
    return seconds + law.host_batch + law.host_request * requests


@compiled(inline=True)
def _at(knots, seconds, slope, num_knots, tokens):
    """The table at `tokens`, as `tabulated_law` has it."""
    low, high = 0, num_knots - 1
    while high - low > 1:
        middle = (low + high) // 2
        if tokens >= knots[middle]:
            low = middle
        else:
            high = middle
    return seconds[low] + slope[low] * max(0.0, tokens - knots[low])
