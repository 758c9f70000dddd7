"""The virtual token counter: clients share the engine fairly by the tokens they are served (arXiv 2401.00588)."""

from math import inf

from baselines.by_urgency import LIMITS, WORK_CONSERVING
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import client_memory, engine_memory, params_of, request_memory
from llmsched_env.simulator.ordering import pop, push
from llmsched_env.simulator.primitives import ALL, chunk, chunks, decodes, tokens_left
from llmsched_env.simulator.scheduler import Linear, Param, Scheduler
from llmsched_env.simulator.state import WAITING

PARAMS = {
    **LIMITS,
    "prompt_weight": Param(1.0, 0, 1000, "for each prompt token", Linear(0, 4)),
    "output_weight": Param(2.0, 0, 1000, "for each output token"),
}
REQUEST = (
    "key",  # counter of its client
    "charged",  # output tokens charged to its client
    "next",  # 1 + the next waiting request of the client; 0: none
)
CLIENT = (
    "counter",  # weighted tokens served
    "queued",  # requests in the queue
    "first",  # 1 + the first waiting request; 0: none
)
ENGINE = ("last_admitted",)  # 1 + the client of the request admitted last; 0: none
params, own, clients, memory = params_of(PARAMS), request_memory(REQUEST), client_memory(CLIENT), engine_memory(ENGINE)


@compiled
def compose(view):
    """Running requests go on; then prompts of the client with the smallest counter, first come first served inside.

    A counter grows by the weight of the prompt when a request is admitted, and by that of each output token when it
    appears. A client that joins the queue is lifted to the smallest counter of the clients in it. If the queue is
    empty, it is lifted to the counter of the client that left it last, so that credit cannot be saved up while away.
    The first prompt without memory ends admission. In the paper admitted requests run to their end. Requests that lack
    of memory preempts here are not charged for their prompt again, nor do they lift their client. Prompts may be cut.
    """
    for i in view.running:
        _charge_output(view, i)
    for i in view.finished:
        _charge_output(view, i)
    _join_queue(view)
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    if tokens_left(view) > 0:
        _admit(view)
    queued = clients(view).queued
    for i in view.waiting:
        queued[view.req.client[i]] = 0.0
    return inf


@compiled(inline=True)
def _charge_output(view, i):
    charged = own(view).charged
    fresh = view.req.generated[i] - charged[i]
    charged[i] += fresh
    clients(view).counter[view.req.client[i]] += params(view).output_weight * fresh


@compiled
def _join_queue(view):
    """Count the requests of each client in the queue, arrivals one by one, and lift clients that join it."""
    queued, counter, req = clients(view).queued, clients(view).counter, view.req
    for i in view.waiting:
        queued[req.client[i]] += 1.0
    for i in view.arrived:
        if req.phase[i] == WAITING:
            queued[req.client[i]] -= 1.0
    for i in view.arrived:
        if req.phase[i] == WAITING:
            u = req.client[i]
            if queued[u] == 0.0:
                counter[u] = max(counter[u], _level(view))
            queued[u] += 1.0


@compiled
def _level(view):
    """The smallest counter of clients in the queue; if it is empty, that of the client that left it last."""
    queued, counter, least = clients(view).queued, clients(view).counter, inf
    for i in view.waiting:
        if queued[view.req.client[i]] > 0.0:
            least = min(least, counter[view.req.client[i]])
    if least < inf:
        return least
    last = int(memory(view).last_admitted)
    return counter[last - 1] if last > 0 else 0.0


@compiled
def _admit(view):
    """Admit by a heap of the first waiting request of each client, in the order of their counters."""
    client, keep, heap, size = clients(view), own(view), view.mem.heap, 0
    for i in view.waiting:
        client.first[view.req.client[i]] = 0.0
    for k in range(len(view.waiting) - 1, -1, -1):
        i = view.waiting[k]
        keep.next[i] = client.first[view.req.client[i]]
        client.first[view.req.client[i]] = i + 1.0
    for i in view.waiting:
        if client.first[view.req.client[i]] == i + 1.0:
            keep.key[i] = client.counter[view.req.client[i]]
            push(heap, size, i, keep.key)
            size += 1
    while size > 0:
        i = pop(heap, size, keep.key)
        size -= 1
        u = view.req.client[i]
        if chunk(view, i, ALL) == 0:
            return
        memory(view).last_admitted = u + 1.0
        if view.req.preemptions[i] == 0:
            client.counter[u] += params(view).prompt_weight * view.req.prompt_tokens[i]
        if keep.next[i] > 0.0:
            following = int(keep.next[i]) - 1
            keep.key[following] = client.counter[u]
            push(heap, size, following, keep.key)
            size += 1


vtc = register_scheduler(
    Scheduler(
        "vtc",
        compose,
        params=PARAMS,
        memory={"request": REQUEST, "client": CLIENT, "engine": ENGINE, "heap": ("first",)},
        reference="Fairness in serving large language models, arXiv 2401.00588, algorithm 2",
        **WORK_CONSERVING,
    )
)
