"""Flow control without lengths: Algorithm 2 of Dong and Cao, arXiv 2604.11001."""

from math import inf

from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_of
from llmsched_env.simulator.memory import params_of, uniform
from llmsched_env.simulator.primitives import ALL, again_if_preempted, chunk, chunks, decodes, evict, holds_seat
from llmsched_env.simulator.scheduler import Log, Param, Scheduler

PARAMS = {"limit": Param(4, 0, inf, "requests per batch", Log(1, 64))}
params = params_of(PARAMS)


@compiled
def compose(view):
    """Activate B_t waiting requests, oldest first; while U = sum (l + g + 1) > M, evict the latest activated.

    An evicted request goes to the back of the queue. B_t is `limit` rounded up or down at random, with mean `limit`. It
    is at least one if no request is active, since slots in which nothing runs take no time. U is counted in blocks. In
    the paper what was generated is lost; here the evicted request computes it again with its prompt. A request that
    would be evicted in the slot of its activation is not activated, nor are those behind it. The last active request is
    never evicted, since alone it always fits.
    """
    use = 0
    for i in view.running:
        if holds_seat(view, i):
            use += _next_blocks(view, i)
    last = len(view.running) - 1
    while use > view.kv.total and last > 0:
        if holds_seat(view, view.running[last]):
            use -= _next_blocks(view, view.running[last])
            evict(view, view.running[last])
        last -= 1
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    limit = params(view).limit
    batch = limit if limit == inf else limit // 1.0 + (uniform(view) < limit % 1.0)
    if len(view.running) == 0:
        batch = max(1.0, batch)
    for i in view.waiting:
        use += _next_blocks(view, i)
        overflow = use > view.kv.total and use > _next_blocks(view, i)
        if batch < 1.0 or overflow or chunk(view, i, ALL) == 0:
            break
        batch -= 1.0
    return again_if_preempted(view)


@compiled(inline=True)
def _next_blocks(view, i):
    """Blocks of l + g + 1 tokens: the prompt of request `i`, what it has generated, and the next one."""
    req = view.req
    return blocks_of(view, req.prompt_tokens[i] + req.generated[i] + req.in_flight[i] + 1)


dong_cao_2 = register_scheduler(
    Scheduler(
        "dong_cao_2",
        compose,
        params=PARAMS,
        mixes_phases=True,
        chunks_prefill=True,
        reference="arXiv 2604.11001, Algorithm 2",
    )
)
