"""Seconds of a batch in compiled code; `batch_time` itself, and with it every configuration, does without numba."""

from llmsched_env.compiled import compiled
from llmsched_env.machine.batch_time import law_seconds

batch_seconds = compiled(law_seconds)


@compiled
def seconds_with_host(law, tokens, decode_kv_tokens, prefill_attn_pairs, prefill_context_tokens, requests):
    """Seconds of a batch with `requests` requests, time of the host included."""
    seconds = batch_seconds(law, tokens, decode_kv_tokens, prefill_attn_pairs, prefill_context_tokens)
    return seconds + law.host_batch + law.host_request * requests
