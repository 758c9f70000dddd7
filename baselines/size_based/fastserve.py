"""FastServe: a multi-level feedback queue that a request joins at the level of its prompt; no length is known."""

from math import inf

from baselines.by_urgency import LIMITS, URGENCY, WORK_CONSERVING, serve_members
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of, request_memory
from llmsched_env.simulator.primitives import prefill_left
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler
from llmsched_env.simulator.step_time import chunk_seconds, step_seconds

PARAMS = {
    **LIMITS,
    "first_quantum": Param(1.0, 0.01, 1000, "times a batch of one token", Log(0.25, 64, whole=False)),
    "ratio": Param(2.0, 1.0, 16.0, "from one quantum to the next", Linear(1.5, 4)),
    "queues": Param(8, 1, 40, "queues", Linear(2, 12, whole=True)),
    "promotion_age": Param(60.0, 0.001, inf, "s without service", Log(0.5, 200, whole=False)),
}
REQUEST = (
    *URGENCY,  # number of its queue
    "joined",  # 1 once it has a queue
    "used",  # s of its quantum used
    "served",  # s, when it was last served
)
params, own = params_of(PARAMS), request_memory(REQUEST)


@compiled
def compose(view):
    """Skip-join MLFQ: each batch takes the requests of the first queues, first come first served inside a queue.

    A request joins the first queue whose quantum covers the time of its prompt. It drops by one queue when it has used
    up its quantum, and returns to the first when it has not been served for longer than the promotion age. It uses up
    the time of every batch that it is in. While there is room on the host, a waiting request that finds no memory has
    requests of later queues moved there; the paper also moves them ahead of need. Without a host it waits: else a
    loaded engine would compute the same tokens over and over. Later queues take what the first ones leave of the
    budget, and prompts may be cut.
    """
    first = params(view).first_quantum * chunk_seconds(view, 1, 0)
    for i in view.running:
        _find_queue(view, i, first)
    for i in view.waiting:
        _find_queue(view, i, first)
    wake = serve_members(view, view.kv.swap_free > 0)
    seconds, keep = step_seconds(view), own(view)
    for k in range(view.batch.counts.num_seqs):
        i = view.batch.requests[k]
        keep.used[i] += seconds
        keep.served[i] = view.clock + seconds
    return wake


@compiled
def _find_queue(view, i, first):
    keep, p = own(view), params(view)
    if keep.joined[i] == 0.0:
        keep.joined[i] = 1.0
        keep.served[i] = view.clock
        keep.urgency[i] = _queue_of_prompt(view, i, first)
    elif keep.used[i] >= _quantum(keep.urgency[i], first, p.ratio):
        keep.urgency[i] = min(keep.urgency[i] + 1.0, p.queues - 1.0)
        keep.used[i] = 0.0
    if view.clock - keep.served[i] >= p.promotion_age:
        keep.served[i] = view.clock
        keep.urgency[i] = 0.0
        keep.used[i] = 0.0


@compiled
def _queue_of_prompt(view, i, first):
    """The first queue whose quantum covers the prefill of request `i` alone, over all batches that it takes."""
    p, left, done, seconds = params(view), prefill_left(view, i), 0, 0.0
    while left > 0:
        n = min(left, view.batch.counts.token_limit)
        seconds += chunk_seconds(view, n, done)
        done += n
        left -= n
    queue, quantum = 0.0, first
    while quantum < seconds and queue < p.queues - 1.0:
        queue += 1.0
        quantum *= p.ratio
    return queue


@compiled
def _quantum(queue, first, ratio):
    """Seconds of the quantum of a queue."""
    quantum = first
    for _ in range(int(queue)):
        quantum *= ratio
    return quantum


fastserve = register_scheduler(
    Scheduler(
        "fastserve",
        compose,
        params=PARAMS,
        memory={"request": REQUEST, "heap": ("order",)},
        reference="FastServe, arXiv 2305.05920; number of queues and promotion age are ours",
        **WORK_CONSERVING,
    )
)
