"""Reward terms of a network: integrals of the numbers of tasks and of calls in the system."""

import numpy as np

from llmsched_env.simulator.compiled import compiled

# What an episode carries from one decision to the next: the first task that may be unfinished, the time (s) and the
# integral of the number of calls at the last decision, the number of tasks in the system, and the sums of both terms.
FIRST, SINCE, CALLS_BEFORE, TASKS_PRESENT, SUM_TASKS, SUM_CALLS, PROGRESS = range(7)
TASK_TERM, CALL_TERM, TERMS = range(3)


@compiled
def account(world, network, num_tasks, progress, terms):
    """Write minus the integrals since the last decision, in task-seconds and call-seconds, to `terms` (f8[TERMS]).

    A task is in the system from its arrival to the end of its last call, calls that wait for a tool included (for ever,
    if one of its calls was rejected or abandoned); a call, while it waits or runs at an engine.
    """
    now = network.control.clock
    calls = _call_seconds(world, now)
    terms[TASK_TERM] = -_task_seconds(world, network, num_tasks, progress, now)
    terms[CALL_TERM] = -(calls - progress[CALLS_BEFORE])
    progress[CALLS_BEFORE] = calls
    progress[SINCE] = now
    progress[SUM_TASKS] -= terms[TASK_TERM]
    progress[SUM_CALLS] -= terms[CALL_TERM]


@compiled
def _call_seconds(world, now):
    """Integral of the number of calls at engines up to `now`; the clock of a busy engine may be behind it."""
    total = 0.0
    for g in range(len(world.engines)):
        total += world.engines[g].request_seconds + world.engines[g].num_in_system * (now - world.engines[g].clock)
    return total


@compiled
def _task_seconds(world, network, num_tasks, progress, now):
    total, present, since = 0.0, 0, progress[SINCE]
    first = int(progress[FIRST])
    while first < num_tasks and network.task_finish[first] <= since:
        first += 1
    progress[FIRST] = first
    for t in range(first, num_tasks):
        arrival, finish = world.tasks[t].arrival, network.task_finish[t]
        if arrival > now:
            break
        if np.isnan(finish):
            present += 1
            finish = now
        total += max(0.0, finish - max(arrival, since))
    progress[TASKS_PRESENT] = present
    return total
