"""Admission with memory reserved for the longest possible output, as before paged KV caches."""

from llmsched_env.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_missing, cached_tokens
from llmsched_env.simulator.primitives import reserve, take, tokens_left, usable


@compiled
def admit_reserved(view, max_output):
    """Admit whole prompts first come first served, each with memory reserved for `max_output` more tokens."""
    counts = view.batch.counts
    for i in view.waiting:
        n = usable(view, i)
        longest = min(view.req.prompt_tokens[i] + int(max_output), view.kv.total * view.kv.block_size)
        longest = max(longest, view.req.prefill_tokens[i])
        if n > tokens_left(view) or len(view.running) + counts.admitted >= counts.seq_limit:
            break
        if blocks_missing(view, i, longest - cached_tokens(view, i)) > view.kv.free or take(view, i, n) == 0:
            break
        reserve(view, i, longest)
