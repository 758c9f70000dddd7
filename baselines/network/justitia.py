"""Justitia: tasks one after another, in the order in which fair sharing of the memory would finish them."""

from math import inf

from baselines.in_order import LIMITS, URGENCY, WORK_CONSERVING, serve_each
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.scheduler import Scheduler

VIRTUAL, SINCE, ACTIVE_TASKS = range(3)  # of `view.mem.engine`: virtual time at clock SINCE, tasks here since then
SEEN = 1  # of `view.mem.request`, by task: a table has no more tasks than calls


@compiled
def compose(view):
    """Smallest finish tag first: the virtual time at which its task came, plus the KV token-time that it costs.

    Virtual time runs by the memory of the engine over the number of tasks that it holds calls of. A task has one tag
    for all engines; an engine whose virtual time is behind that of a task's arrival elsewhere moves up to it.
    """
    memory = view.mem.engine
    if memory[ACTIVE_TASKS] > 0.0:
        kv_tokens = view.kv.total * view.kv.block_size
        memory[VIRTUAL] += (view.clock - memory[SINCE]) * kv_tokens / memory[ACTIVE_TASKS]
    memory[SINCE] = view.clock
    for i in view.arrived:
        task = view.tasks[view.req.task[i]]
        if task.virtual_finish == inf:
            task.virtual_finish = memory[VIRTUAL] + task.cost
        memory[VIRTUAL] = max(memory[VIRTUAL], task.virtual_finish - task.cost)
    memory[ACTIVE_TASKS] = _count_tasks(view)
    for i in view.running:
        view.mem.request[i, URGENCY] = view.tasks[view.req.task[i]].virtual_finish
    for i in view.waiting:
        view.mem.request[i, URGENCY] = view.tasks[view.req.task[i]].virtual_finish
    return serve_each(view)


@compiled
def _count_tasks(view):
    """Tasks of which a call is present."""
    seen, task, total = view.mem.request, view.req.task, 0
    for i in view.running:
        seen[task[i], SEEN] = 0.0
    for i in view.waiting:
        seen[task[i], SEEN] = 0.0
    for i in view.running:
        total += seen[task[i], SEEN] == 0.0
        seen[task[i], SEEN] = 1.0
    for i in view.waiting:
        total += seen[task[i], SEEN] == 0.0
        seen[task[i], SEEN] = 1.0
    return total


justitia = Scheduler(
    "justitia",
    compose,
    params=LIMITS,
    memory={
        "request": ("urgency", "seen"),
        "engine": ("virtual_time", "since", "active_tasks"),
        "heap": ("order",),
    },
    needs_lengths="predicted",
    reference="Justitia: fair queueing of LLM applications by virtual time, arXiv 2510.17015",
    **WORK_CONSERVING,
)
