"""Whether a scheduler stayed within what vLLM's scheduler class can do with four knobs.

The knobs are the token budget of a step, the admission limit, the order of the waiting queue, and holding prefill.
vLLM's own loop does the rest: every decoding request gets its token, begun prompts share the rest of the budget in the
order of their admission, then waiting requests. So no batch leaves out a decode, and no batch serves a prompt behind a
begun one that it does not complete.
"""

from __future__ import annotations

import numpy as np

from llmsched_env.results.records import Result


def batches_beyond_vllm(result: Result) -> int:
    """Number of batches that vLLM's scheduler could not have formed with any setting of the four knobs.

    Args:
        result: of a run without preemption, recorded with `record="entries"`.

    Raises:
        ValueError: if a request was preempted, as this check does not model preemption, or no entries were recorded.
    """
    batches, entries = result.batches, result.batch_entries
    if batches is None or entries is None:
        raise ValueError('result holds no batch entries; simulate with record="entries"')
    preempted = int(batches["preemptions"].sum())
    if preempted:
        raise ValueError(f"result holds {preempted} preemptions; give the engine more KV blocks, or less load")
    prompt_left = result.requests["prompt_tokens"].copy()
    output_left = result.requests["output_tokens"].copy()
    begun: list[int] = []  # incomplete prompts, in the order of admission
    decoding: set[int] = set()
    edges, beyond = np.searchsorted(entries["batch"], np.arange(len(batches) + 1)), 0
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        batch = entries[first:last]
        prompts, decodes = batch[batch["is_prefill"]], batch["request"][~batch["is_prefill"]].tolist()
        prompt_left[prompts["request"]] -= prompts["tokens"]
        taken = prompts["request"].tolist()
        begun += [i for i in taken if i not in begun]
        behind = max((begun.index(i) for i in taken), default=0)
        beyond += not decoding.issubset(decodes) or bool((prompt_left[begun[:behind]] > 0).any())
        done = [i for i in begun if prompt_left[i] == 0]
        begun = [i for i in begun if prompt_left[i] > 0]
        output_left[done + decodes] -= 1
        decoding = {i for i in (*decoding, *done) if output_left[i] > 0}
    return beyond
