"""Shortest job first and shortest remaining work first, told the lengths or predictions of them.

SSJF is arXiv 2404.08509; SRPT is Schrage's rule (1968), the server of the latency bound.
"""

from math import inf

from baselines.in_order import LIMITS, NUM_LIMITS, URGENCY, WORK_CONSERVING, serve_each_preemptive
from baselines.lengths import log_normal, output_left
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.ordering import chunks_by_key
from llmsched_env.simulator.primitives import ALL, chunks, decodes, prefill_left, tokens_left
from llmsched_env.simulator.rule import Param
from llmsched_env.simulator.scheduler import Scheduler

NOISE = NUM_LIMITS
FACTOR = URGENCY + 1  # column of request memory: noise on what is told of the length; 0: not drawn yet


@compiled
def shortest_job(view):
    """SJF: running requests go on as in Sarathi; the waiting one with the fewest output tokens comes next.

    Nobody is preempted but for the memory that others grow into, and then the latest admitted. A preempted request
    counts with the output tokens it has left. Prompts do not count, as in SSJF. A request without a prediction stands
    behind all that have one.
    """
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    if tokens_left(view) > 0:
        for i in view.waiting:
            view.mem.request[i, URGENCY] = output_left(view, i, _told(view, i))
        chunks_by_key(view, view.mem.request[:, URGENCY], 0.0)
    return inf


@compiled
def shortest_remaining_work(view):
    """SRPT: every batch serves the requests present in order of the work left: prompt tokens and output tokens.

    What the budget does not reach pauses and keeps its memory. A request that finds no memory takes that of those with
    more work left, the most first; what they lose counts as work again.
    """
    for i in view.running:
        view.mem.request[i, URGENCY] = prefill_left(view, i) + output_left(view, i, _told(view, i))
    for i in view.waiting:
        view.mem.request[i, URGENCY] = prefill_left(view, i) + output_left(view, i, _told(view, i))
    return serve_each_preemptive(view)


@compiled
def _told(view, i):
    """Output tokens of request `i` as far as the scheduler is told, times a factor drawn once; nan: unknown."""
    sd, memory = view.mem.params[NOISE], view.mem.request
    if sd == 0.0:
        return view.req.known_output[i]
    if memory[i, FACTOR] == 0.0:
        memory[i, FACTOR] = log_normal(view, sd)
    return view.req.known_output[i] * memory[i, FACTOR]


_SHARED = {
    "params": {**LIMITS, "noise": Param(0.0, 0, 3, "standard deviation of the logarithm of a factor on lengths")},
    "memory": {"request": ("urgency", "factor"), "heap": ("order",)},
    **WORK_CONSERVING,
}

sjf = Scheduler("sjf", shortest_job, needs_lengths="true", reference="Shortest job first by output tokens", **_SHARED)
ssjf = Scheduler("ssjf", shortest_job, needs_lengths="predicted", reference="SSJF, arXiv 2404.08509", **_SHARED)
srpt = Scheduler(
    "srpt",
    shortest_remaining_work,
    needs_lengths="true",
    reference="Schrage, Operations Research 16 (1968): least remaining work first",
    **_SHARED,
)
srpt_predicted = Scheduler(
    "srpt_predicted",
    shortest_remaining_work,
    needs_lengths="predicted",
    reference="Shortest predicted remaining work first: srpt with predictions for lengths",
    **_SHARED,
)
