"""The virtual token counter: clients share the engine fairly by the tokens they are served (arXiv 2401.00588)."""

from math import inf

from baselines.in_order import LIMITS, NUM_LIMITS, WORK_CONSERVING
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import pop, push
from llmsched_env.simulator.primitives import ALL, chunk, chunks, decodes, tokens_left
from llmsched_env.simulator.rule import Linear, Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import WAITING

PROMPT_WEIGHT, OUTPUT_WEIGHT = range(NUM_LIMITS, NUM_LIMITS + 2)
KEY, CHARGED, NEXT = range(3)  # of request memory: counter of its client; output tokens charged; 1 + next of the client
COUNTER, QUEUED, FIRST = range(3)  # of client memory; requests in the queue; 1 + the first of them, 0: none
LAST_ADMITTED = 0  # of engine memory: 1 + client of the request admitted last; 0: none


@compiled
def compose(view):
    """Running requests go on; then prompts of the client with the smallest counter, first come first served inside.

    A counter grows by the weight of the prompt as a request is admitted and by that of each output token as it appears.
    A client that joins the queue is lifted to the smallest counter of those in it, or if it is empty, to that of the
    client which left it last, so that nobody saves up credit while away. The first prompt without memory ends
    admission. In the paper admitted requests run to their end; those that lack of memory preempts here are not charged
    for their prompt again, nor do they lift their client. Prompts may be cut.
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
    for i in view.waiting:
        view.mem.client[view.req.client[i], QUEUED] = 0.0
    return inf


@compiled(inline=True)
def _charge_output(view, i):
    memory = view.mem.request
    fresh = view.req.generated[i] - memory[i, CHARGED]
    memory[i, CHARGED] += fresh
    view.mem.client[view.req.client[i], COUNTER] += view.mem.params[OUTPUT_WEIGHT] * fresh


@compiled
def _join_queue(view):
    """Count the requests of each client in the queue, arrivals one by one, and lift clients that come into it."""
    clients, req = view.mem.client, view.req
    for i in view.waiting:
        clients[req.client[i], QUEUED] += 1.0
    for i in view.arrived:
        if req.phase[i] == WAITING:
            clients[req.client[i], QUEUED] -= 1.0
    for i in view.arrived:
        if req.phase[i] == WAITING:
            u = req.client[i]
            if clients[u, QUEUED] == 0.0:
                clients[u, COUNTER] = max(clients[u, COUNTER], _level(view))
            clients[u, QUEUED] += 1.0


@compiled
def _level(view):
    """The smallest counter of clients in the queue; of an empty one, the counter of the client that left it last."""
    clients, least = view.mem.client, inf
    for i in view.waiting:
        if clients[view.req.client[i], QUEUED] > 0.0:
            least = min(least, clients[view.req.client[i], COUNTER])
    if least < inf:
        return least
    last = int(view.mem.engine[LAST_ADMITTED])
    return clients[last - 1, COUNTER] if last > 0 else 0.0


@compiled
def _admit(view):
    """The heap holds the first waiting request of each client, by the counter of its client."""
    clients, memory, heap, keys, size = view.mem.client, view.mem.request, view.mem.heap, view.mem.request[:, KEY], 0
    for i in view.waiting:
        clients[view.req.client[i], FIRST] = 0.0
    for k in range(len(view.waiting) - 1, -1, -1):
        i = view.waiting[k]
        memory[i, NEXT] = clients[view.req.client[i], FIRST]
        clients[view.req.client[i], FIRST] = i + 1.0
    for i in view.waiting:
        if clients[view.req.client[i], FIRST] == i + 1.0:
            memory[i, KEY] = clients[view.req.client[i], COUNTER]
            push(heap, size, i, keys)
            size += 1
    while size > 0:
        i = pop(heap, size, keys)
        size -= 1
        u = view.req.client[i]
        if chunk(view, i, ALL) == 0:
            return
        view.mem.engine[LAST_ADMITTED] = u + 1.0
        if view.req.preemptions[i] == 0:
            clients[u, COUNTER] += view.mem.params[PROMPT_WEIGHT] * view.req.prompt_tokens[i]
        if memory[i, NEXT] > 0.0:
            following = int(memory[i, NEXT]) - 1
            memory[following, KEY] = clients[u, COUNTER]
            push(heap, size, following, keys)
            size += 1


vtc = Scheduler(
    "vtc",
    compose,
    params={
        **LIMITS,
        "prompt_weight": Param(1.0, 0, 1000, "for each prompt token", Linear(0, 4)),
        "output_weight": Param(2.0, 0, 1000, "for each output token"),
    },
    memory={
        "request": ("key", "charged", "next"),
        "client": ("counter", "queued", "first"),
        "engine": ("last_admitted",),
        "heap": ("first",),
    },
    reference="Fairness in serving large language models, arXiv 2401.00588, algorithm 2",
    **WORK_CONSERVING,
)
