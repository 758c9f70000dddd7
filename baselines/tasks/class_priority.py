"""Strict priorities: of classes in a given order, and by how far along its task a call is."""

from baselines.by_urgency import LIMITS, URGENCY, WORK_CONSERVING, serve_classes
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import numbered, params_of, request_memory
from llmsched_env.simulator.scheduler import Param, Scheduler

CLASSES = 8
RANKS = numbered("rank", CLASSES)
PARAMS = {**LIMITS, **{name: Param(k, 0, 1000, "smaller first") for k, name in enumerate(RANKS)}}
params, own = params_of(PARAMS, arrays=("rank",)), request_memory(URGENCY)


@compiled
def by_rank(view):
    """Classes in order of their ranks, equal ranks together; classes from 7 on all have the last rank."""
    urgency, rank = own(view).urgency, params(view).rank
    for i in view.running:
        urgency[i] = rank[min(view.req.klass[i], CLASSES - 1)]
    for i in view.waiting:
        urgency[i] = rank[min(view.req.klass[i], CLASSES - 1)]
    return serve_classes(view)


@compiled
def first_calls_first(view):
    """Calls with the fewest calls before them in their task first."""
    urgency = own(view).urgency
    for i in view.running:
        urgency[i] = view.req.hop[i]
    for i in view.waiting:
        urgency[i] = view.req.hop[i]
    return serve_classes(view)


@compiled
def last_calls_first(view):
    """Calls with the most calls before them in their task first."""
    urgency = own(view).urgency
    for i in view.running:
        urgency[i] = -view.req.hop[i]
    for i in view.waiting:
        urgency[i] = -view.req.hop[i]
    return serve_classes(view)


class_priority = register_scheduler(
    Scheduler(
        "class_priority",
        by_rank,
        params=PARAMS,
        memory={"request": URGENCY},
        reference="arXiv 2504.07347, section 5.4: strict priority, Sarathi inside a class",
        **WORK_CONSERVING,
    )
)
fbfs = register_scheduler(
    Scheduler(
        "fbfs",
        first_calls_first,
        params=LIMITS,
        memory={"request": URGENCY},
        reference="first buffer first served: Lu and Kumar 1991",
        **WORK_CONSERVING,
    )
)
lbfs = register_scheduler(
    Scheduler(
        "lbfs",
        last_calls_first,
        params=LIMITS,
        memory={"request": URGENCY},
        reference="last buffer first served: Lu and Kumar 1991",
        **WORK_CONSERVING,
    )
)
