"""Sarathi-Serve as it was built: stall-free batches over a paged KV cache with a watermark."""

from math import inf

from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of
from llmsched_env.simulator.primitives import ALL, chunk_above, chunks, decodes, reserve
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler

PARAMS = {
    "token_budget": Param(512, 1, 16384, "tokens", Log(64, 8192)),
    "max_num_seqs": Param(inf, 1, inf, "requests", Log(8, 1024)),
    "watermark": Param(0.01, 0, 1, "share of KV blocks", Linear(0, 0.2)),
}
params = params_of(PARAMS)


@compiled
def compose(view):
    """Decodes; prompts that have begun; then new ones, which get the blocks of their whole prompt at once.

    Where a decode finds no block, the request admitted last is preempted.
    """
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    watermark = params(view).watermark
    for i in view.waiting:
        if chunk_above(view, i, ALL, watermark) == 0:
            break
        reserve(view, i, view.req.prefill_tokens[i])
    return inf


sarathi_paged = register_scheduler(
    Scheduler(
        "sarathi_paged",
        compose,
        params=PARAMS,
        work_conserving=False,  # the watermark holds requests back
        throughput_optimal=True,
        mixes_phases=True,
        chunks_prefill=True,
        reserves_kv=True,
        reference="Agrawal et al., OSDI 2024 (arXiv 2403.02310), Algorithm 3",
    )
)
