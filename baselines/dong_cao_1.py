"""Flow control with known classes: Algorithm 1 of Dong and Cao, arXiv 2604.11001."""

from math import inf

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.primitives import ALL, chunk, chunks, decodes
from llmsched_env.simulator.rule import Log, Param
from llmsched_env.simulator.scheduler import Scheduler

CLASSES = 8


@compiled
def compose(view):
    """A token for every active request; then activate at most b_k waiting requests of class k, oldest first.

    Nothing checks whether memory will last: that is what the limits are chosen for. Requests of l prompt and o output
    tokens hold w = l o + o (o + 1)/2 token-batches of memory over their life, so the memory M is never exceeded if
    sum b_k w_k <= M; the queues stay finite if b_k is above the arrivals of class k per batch. In the paper prompts
    cost memory only; where a batch has no room for a whole prompt, the next ones go on with it. Requests of classes
    without a limit are never activated.
    """
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    activated = view.mem.engine
    activated[:] = 0.0
    for k in range(len(view.waiting)):
        i = view.waiting[k]
        klass = view.req.klass[i]
        if klass < CLASSES and activated[klass] < view.mem.params[klass]:
            # Where the machine has no room, those behind it in its class wait as well.
            activated[klass] += 1.0 if chunk(view, i, ALL) > 0 else inf
    return inf


dong_cao_1 = Scheduler(
    "dong_cao_1",
    compose,
    params={f"limit_{k}": Param(4, 0, inf, "requests per batch", Log(1, 64)) for k in range(CLASSES)},
    memory={"engine": tuple(f"activated_{k}" for k in range(CLASSES))},
    needs_lengths="distribution",
    work_conserving=False,
    mixes_phases=True,
    chunks_prefill=True,
    reference="arXiv 2604.11001, Algorithm 1",
)
