"""Deadlines alone: the earliest first, or the one with the least slack."""

from math import inf

from baselines.by_urgency import LIMITS, WORK_CONSERVING
from baselines.registry import register_scheduler
from baselines.slo.by_key import KEY, own, prompts_by_key
from baselines.slo.deadlines import next_token_due, prefill_seconds
from llmsched_env.compiled import compiled
from llmsched_env.simulator.primitives import again_if_preempted, decodes, is_pending
from llmsched_env.simulator.scheduler import Scheduler

MEMORY = {"request": KEY, "heap": ("prompts",)}


@compiled
def earliest_deadline(view):
    """Decodes, then the prompts whose first token is due first.

    A preempted request is due when its next token is. Requests without a target come last, in order of their numbers.
    """
    decodes(view, view.running)
    key = own(view).key
    for i in view.running:
        if is_pending(view, i):
            key[i] = next_token_due(view, i, 1)
    for i in view.waiting:
        key[i] = next_token_due(view, i, 1)
    prompts_by_key(view, inf, 1, 0.0)
    return again_if_preempted(view)


@compiled
def least_time_to_spare(view):
    """Decodes, then the prompts with the least slack: time until they are due less that of the prefill they still need.

    The present time is the same for all and left out. The time of a prefill is that of a batch with nothing else.
    """
    decodes(view, view.running)
    key = own(view).key
    for i in view.running:
        if is_pending(view, i):
            key[i] = next_token_due(view, i, 1) - prefill_seconds(view, i)
    for i in view.waiting:
        key[i] = next_token_due(view, i, 1) - prefill_seconds(view, i)
    prompts_by_key(view, inf, 1, 0.0)
    return again_if_preempted(view)


edf = register_scheduler(
    Scheduler(
        "edf",
        earliest_deadline,
        params=LIMITS,
        memory=MEMORY,
        reference="earliest deadline first: Liu and Layland 1973; the batch is Sarathi-Serve's (arXiv 2403.02310)",
        **WORK_CONSERVING,
    )
)
least_slack = register_scheduler(
    Scheduler(
        "least_slack",
        least_time_to_spare,
        params=LIMITS,
        memory=MEMORY,
        reference="least slack first: Mok 1983; the batch is Sarathi-Serve's (arXiv 2403.02310)",
        **WORK_CONSERVING,
    )
)
