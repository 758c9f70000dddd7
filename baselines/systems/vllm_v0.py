"""vLLM V0: the scheduler of vLLM until 2025, in its default mode (release 0.6.6): prefill first, whole prompts."""

from math import inf

from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_missing, blocks_of
from llmsched_env.simulator.memory import params_of
from llmsched_env.simulator.primitives import again_if_preempted, preempt, reject, take, tokens_left, usable
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler
from llmsched_env.simulator.state import RUNNING

PARAMS = {
    # max(max_model_len, 2048); vLLM refuses a lower one, with which long prompts would be turned away: never tuned.
    "token_budget": Param(16384, 1, 131072, "tokens"),
    "max_num_seqs": Param(256, 1, inf, "requests", Log(8, 1024)),
    "watermark": Param(0.01, 0, 1, "share of KV blocks", Linear(0, 0.2)),
}
params = params_of(PARAMS)


@compiled
def compose(view):
    """Whole prompts, if any fits; otherwise one token for each running request."""
    swapped_first = len(view.waiting) > 0 and view.req.swapped[view.waiting[0]] > 0
    if swapped_first or not _admit(view):
        _decode(view)
        if swapped_first and view.batch.counts.preemptions == 0:
            _swap_in(view)
    return again_if_preempted(view)


@compiled
def _admit(view):
    """Prompts first come first served, up to the first that does not fit; a prompt that can never fit is rejected."""
    counts = view.batch.counts
    spare = _spare_blocks(view)
    for i in view.waiting:
        if view.req.swapped[i] > 0:  # comes back to decode, in a batch without prompts
            break
        n = usable(view, i)
        if n > counts.token_limit or blocks_of(view, n) + spare > view.kv.total:
            reject(view, i)
            continue
        if blocks_missing(view, i, n) + spare > view.kv.free:
            break
        if n > tokens_left(view) or len(view.running) + counts.admitted >= counts.seq_limit or take(view, i, n) == 0:
            break
    return counts.admitted > 0


@compiled(inline=True)
def _spare_blocks(view):
    return int(params(view).watermark * view.kv.total)  # even where nothing runs


@compiled
def _decode(view):
    """A token for each running request; each asks for a free block, even if its last one has room.

    If none is free, the last request that has not been served yet is preempted, or else the one that asks.
    """
    k, last = 0, len(view.running) - 1
    while k <= last:
        i = view.running[k]
        while view.kv.free < 1 and last > k:
            preempt(view, view.running[last])
            last -= 1
        if view.kv.free < 1:
            preempt(view, i)
        elif view.req.phase[i] == RUNNING:
            take(view, i, 1)
        k += 1


@compiled
def _swap_in(view):
    """Requests come back from the host, oldest first, while there is memory; each decodes at once."""
    spare = _spare_blocks(view)
    for i in view.waiting:
        if view.req.swapped[i] == 0 or blocks_missing(view, i, 1) + spare > view.kv.free or take(view, i, 1) == 0:
            break


vllm_v0 = register_scheduler(
    Scheduler(
        "vllm_v0",
        compose,
        params=PARAMS,
        reference="vLLM 0.6.6, core/scheduler.py without chunked prefill; SOSP 2023 (arXiv 2309.06180)",
    )
)
