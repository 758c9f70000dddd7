"""Flow control with known classes: Algorithm 1 of Dong and Cao, arXiv 2604.11001."""

from math import inf

from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import engine_memory, numbered, params_of
from llmsched_env.simulator.primitives import ALL, chunk, chunks, decodes
from llmsched_env.simulator.scheduler import Log, Param, Scheduler

CLASSES = 8
PARAMS = {name: Param(4, 0, inf, "requests per batch", Log(1, 64)) for name in numbered("limit", CLASSES)}
ENGINE = numbered("activated", CLASSES)  # requests of a class activated in this batch
params, memory = params_of(PARAMS, arrays=("limit",)), engine_memory(ENGINE, arrays=("activated",))


@compiled
def compose(view):
    """A token for every active request; then activate at most b_k waiting requests of class k, oldest first.

    Nothing checks whether memory will last: the limits are chosen for that. Requests of l prompt and o output tokens
    hold w = l o + o (o + 1)/2 token-batches of memory over their life, so the memory M is never exceeded if
    sum b_k w_k <= M. The queues stay bounded if b_k is above the arrivals of class k per batch. In the paper prompts
    cost memory only. Here a prompt that a batch has no room for continues in the next ones. Requests of classes without
    a limit are never activated.
    """
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    activated, limit = memory(view).activated, params(view).limit
    activated[:] = 0.0
    for i in view.waiting:
        klass = view.req.klass[i]
        if klass < CLASSES and activated[klass] < limit[klass]:
            # Where the machine has no room, those behind it in its class wait as well.
            activated[klass] += 1.0 if chunk(view, i, ALL) > 0 else inf
    return inf


dong_cao_1 = register_scheduler(
    Scheduler(
        "dong_cao_1",
        compose,
        params=PARAMS,
        memory={"engine": ENGINE},
        needs_lengths="distribution",
        work_conserving=False,
        mixes_phases=True,
        chunks_prefill=True,
        reference="arXiv 2604.11001, Algorithm 1",
    )
)
