"""Strict priorities: of classes in a given order, and by how far along its task a call is."""

from baselines.in_order import LIMITS, NUM_LIMITS, URGENCY, WORK_CONSERVING, serve_classes
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.rule import Param
from llmsched_env.simulator.scheduler import Scheduler

CLASSES = 8


@compiled
def by_rank(view):
    """Classes in order of their ranks, those of one rank together; from class 7 on all have the last rank."""
    ranks = view.mem.params[NUM_LIMITS:]
    for i in view.running:
        view.mem.request[i, URGENCY] = ranks[min(view.req.klass[i], CLASSES - 1)]
    for i in view.waiting:
        view.mem.request[i, URGENCY] = ranks[min(view.req.klass[i], CLASSES - 1)]
    return serve_classes(view)


@compiled
def first_calls_first(view):
    """Calls with the fewest calls before them first."""
    for i in view.running:
        view.mem.request[i, URGENCY] = view.req.hop[i]
    for i in view.waiting:
        view.mem.request[i, URGENCY] = view.req.hop[i]
    return serve_classes(view)


@compiled
def last_calls_first(view):
    """Calls with the most calls before them first."""
    for i in view.running:
        view.mem.request[i, URGENCY] = -view.req.hop[i]
    for i in view.waiting:
        view.mem.request[i, URGENCY] = -view.req.hop[i]
    return serve_classes(view)


_MEMORY = {"request": ("urgency",)}

class_priority = Scheduler(
    "class_priority",
    by_rank,
    params={**LIMITS, **{f"rank_{k}": Param(k, 0, 1000, "smaller first") for k in range(CLASSES)}},
    memory=_MEMORY,
    reference="arXiv 2504.07347, section 5.4: strict priority, Sarathi inside a class",
    **WORK_CONSERVING,
)
fbfs = Scheduler(
    "fbfs",
    first_calls_first,
    params=LIMITS,
    memory=_MEMORY,
    reference="first buffer first served: Lu and Kumar 1991",
    **WORK_CONSERVING,
)
lbfs = Scheduler(
    "lbfs",
    last_calls_first,
    params=LIMITS,
    memory=_MEMORY,
    reference="last buffer first served: Lu and Kumar 1991",
    **WORK_CONSERVING,
)
