"""Justitia: tasks one after another, in the order in which fair sharing of the memory would finish them."""

from math import inf

from baselines.by_urgency import LIMITS, URGENCY, WORK_CONSERVING, serve_each
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import engine_memory, request_memory
from llmsched_env.simulator.scheduler import Scheduler

REQUEST = (*URGENCY, "seen")  # seen is by task: there are no more tasks than calls
ENGINE = (
    "virtual_time",  # at clock `since`
    "since",
    "active_tasks",  # tasks with calls here since then
)
own, memory = request_memory(REQUEST), engine_memory(ENGINE)


@compiled
def compose(view):
    """Smallest finish tag first: the virtual time at which its task came, plus the KV token-time that it costs.

    Virtual time advances at the memory of the engine divided by the number of tasks whose calls it holds. A task has
    one tag for all engines. An engine whose virtual time is behind the arrival of a task at another one moves up to it.
    """
    m = memory(view)
    if m.active_tasks > 0.0:
        kv_tokens = view.kv.total * view.kv.block_size
        m.virtual_time += (view.clock - m.since) * kv_tokens / m.active_tasks
    m.since = view.clock
    for i in view.arrived:
        task = view.tasks[view.req.task[i]]
        if task.virtual_finish == inf:
            task.virtual_finish = m.virtual_time + task.cost
        m.virtual_time = max(m.virtual_time, task.virtual_finish - task.cost)
    m.active_tasks = _count_tasks(view)
    urgency = own(view).urgency
    for i in view.running:
        urgency[i] = view.tasks[view.req.task[i]].virtual_finish
    for i in view.waiting:
        urgency[i] = view.tasks[view.req.task[i]].virtual_finish
    return serve_each(view)


@compiled
def _count_tasks(view):
    """Number of tasks with a call present."""
    seen, task, total = own(view).seen, view.req.task, 0
    for i in view.running:
        seen[task[i]] = 0.0
    for i in view.waiting:
        seen[task[i]] = 0.0
    for i in view.running:
        total += seen[task[i]] == 0.0
        seen[task[i]] = 1.0
    for i in view.waiting:
        total += seen[task[i]] == 0.0
        seen[task[i]] = 1.0
    return total


justitia = register_scheduler(
    Scheduler(
        "justitia",
        compose,
        params=LIMITS,
        memory={"request": REQUEST, "engine": ENGINE, "heap": ("order",)},
        needs_lengths="predicted",
        reference="Justitia: fair queueing of LLM applications by virtual time, arXiv 2510.17015",
        **WORK_CONSERVING,
    )
)
