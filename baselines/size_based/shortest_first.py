"""Shortest job first and shortest remaining work first, by true or predicted output lengths.

SSJF is arXiv 2404.08509; SRPT is Schrage's rule (1968), the server of the latency bound.
"""

from math import inf

from baselines.by_urgency import LIMITS, URGENCY, WORK_CONSERVING, serve_each_preemptive
from baselines.registry import register_scheduler
from baselines.size_based.output_length import log_normal, output_left
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of, request_memory
from llmsched_env.simulator.ordering import chunks_by_key
from llmsched_env.simulator.primitives import ALL, chunks, decodes, prefill_left, tokens_left
from llmsched_env.simulator.scheduler import Param, Scheduler

PARAMS = {**LIMITS, "noise": Param(0.0, 0, 3, "standard deviation of the logarithm of a factor on lengths")}
REQUEST = (*URGENCY, "factor")  # factor: noise on the output length; 0: not drawn yet
MEMORY = {"request": REQUEST, "heap": ("order",)}
params, own = params_of(PARAMS), request_memory(REQUEST)


@compiled
def shortest_job(view):
    """SJF: running requests go on as in Sarathi; the waiting one with the fewest output tokens comes next.

    Requests are preempted only for memory that others grow into, the latest admitted first. A preempted request counts
    with the output tokens it has left. Prompts do not count, as in SSJF. Requests without a prediction come after all
    that have one.
    """
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    if tokens_left(view) > 0:
        urgency = own(view).urgency
        for i in view.waiting:
            urgency[i] = output_left(view, i, _told(view, i))
        chunks_by_key(view, urgency, 0.0)
    return inf


@compiled
def shortest_remaining_work(view):
    """SRPT: every batch serves the requests present in order of the work left: prompt tokens and output tokens.

    Requests that the budget does not reach pause and keep their memory. A request that finds no memory takes it from
    those with more work left, the most first; the tokens they lose count as work again.
    """
    urgency = own(view).urgency
    for i in view.running:
        urgency[i] = prefill_left(view, i) + output_left(view, i, _told(view, i))
    for i in view.waiting:
        urgency[i] = prefill_left(view, i) + output_left(view, i, _told(view, i))
    return serve_each_preemptive(view)


@compiled
def _told(view, i):
    """Output tokens of request `i` as the scheduler is told, times a factor drawn once; nan: unknown."""
    sd, factor = params(view).noise, own(view).factor
    if sd == 0.0:
        return view.req.known_output[i]
    if factor[i] == 0.0:
        factor[i] = log_normal(view, sd)
    return view.req.known_output[i] * factor[i]


sjf = register_scheduler(
    Scheduler(
        "sjf",
        shortest_job,
        params=PARAMS,
        memory=MEMORY,
        needs_lengths="true",
        reference="Shortest job first by output tokens",
        **WORK_CONSERVING,
    )
)
ssjf = register_scheduler(
    Scheduler(
        "ssjf",
        shortest_job,
        params=PARAMS,
        memory=MEMORY,
        needs_lengths="predicted",
        reference="SSJF, arXiv 2404.08509",
        **WORK_CONSERVING,
    )
)
srpt = register_scheduler(
    Scheduler(
        "srpt",
        shortest_remaining_work,
        params=PARAMS,
        memory=MEMORY,
        needs_lengths="true",
        reference="Schrage, Operations Research 16 (1968): least remaining work first",
        **WORK_CONSERVING,
    )
)
srpt_predicted = register_scheduler(
    Scheduler(
        "srpt_predicted",
        shortest_remaining_work,
        params=PARAMS,
        memory=MEMORY,
        needs_lengths="predicted",
        reference="Shortest predicted remaining work first: srpt with predictions for lengths",
        **WORK_CONSERVING,
    )
)
