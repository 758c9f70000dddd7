"""FastServe: a multi-level feedback queue that a request joins at the level of its prompt; no length is known."""

from math import inf

from baselines.in_order import LIMITS, NUM_LIMITS, URGENCY, WORK_CONSERVING, serve_members
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.primitives import prefill_left
from llmsched_env.simulator.rule import Linear, Log, Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.step_time import chunk_seconds, step_seconds

QUANTUM, RATIO, QUEUES, AGE = range(NUM_LIMITS, NUM_LIMITS + 4)
# Columns of request memory: 1 once it has a queue; s used there; when it was served last.
JOINED, USED, SERVED = range(1, 4)


@compiled
def compose(view):
    """Skip-join MLFQ: each batch takes the requests of the first queues, first come first served inside a queue.

    A request joins the first queue whose quantum covers the time of its prompt, drops by one as it has used its quantum
    up, and returns to the first as it has not been served for longer than the promotion age. It uses up the time of
    every batch that it is in. While there is room on the host, a waiting request that finds no memory has those in
    later queues move there; the paper also moves them ahead of need. Without a host it waits: else a loaded engine
    would compute the same tokens over and over. Later queues fill what the first leave of the budget, and prompts may
    be cut.
    """
    first = view.mem.params[QUANTUM] * chunk_seconds(view, 1, 0)
    for i in view.running:
        _find_queue(view, i, first)
    for i in view.waiting:
        _find_queue(view, i, first)
    wake = serve_members(view, view.kv.swap_free > 0)
    seconds, memory = step_seconds(view), view.mem.request
    for k in range(view.batch.counts.num_seqs):
        i = view.batch.requests[k]
        memory[i, USED] += seconds
        memory[i, SERVED] = view.clock + seconds
    return wake


@compiled
def _find_queue(view, i, first):
    memory, params = view.mem.request, view.mem.params
    if memory[i, JOINED] == 0.0:
        memory[i, JOINED] = 1.0
        memory[i, SERVED] = view.clock
        memory[i, URGENCY] = _queue_of_prompt(view, i, first)
    elif memory[i, USED] >= _quantum(params, memory[i, URGENCY], first):
        memory[i, URGENCY] = min(memory[i, URGENCY] + 1.0, params[QUEUES] - 1.0)
        memory[i, USED] = 0.0
    if view.clock - memory[i, SERVED] >= params[AGE]:
        memory[i, SERVED] = view.clock
        memory[i, URGENCY] = 0.0
        memory[i, USED] = 0.0


@compiled
def _queue_of_prompt(view, i, first):
    """The first queue whose quantum covers the prefill of request `i` alone, in as many batches as it takes."""
    left, done, seconds = prefill_left(view, i), 0, 0.0
    while left > 0:
        n = min(left, view.batch.counts.token_limit)
        seconds += chunk_seconds(view, n, done)
        done += n
        left -= n
    queue, quantum = 0.0, first
    while quantum < seconds and queue < view.mem.params[QUEUES] - 1.0:
        queue += 1.0
        quantum *= view.mem.params[RATIO]
    return queue


@compiled
def _quantum(params, queue, first):
    quantum = first
    for _ in range(int(queue)):
        quantum *= params[RATIO]
    return quantum


fastserve = Scheduler(
    "fastserve",
    compose,
    params={
        **LIMITS,
        "first_quantum": Param(1.0, 0.01, 1000, "times a batch of one token", Log(0.25, 64, whole=False)),
        "ratio": Param(2.0, 1.0, 16.0, "from one quantum to the next", Linear(1.5, 4)),
        "queues": Param(8, 1, 40, "queues", Linear(2, 12, whole=True)),
        "promotion_age": Param(60.0, 0.001, inf, "s without service", Log(0.5, 200, whole=False)),
    },
    memory={"request": ("urgency", "joined", "used", "served"), "heap": ("order",)},
    reference="FastServe, arXiv 2305.05920; number of queues and promotion age are ours",
    **WORK_CONSERVING,
)
