"""What a network is told of its tasks before it runs: who waits for whom, who starts when, and the classes of calls."""

import numpy as np

from llmsched_env.simulator.network_state import Network
from llmsched_env.simulator.world import World
from llmsched_env.tables.task_table import TaskTable


def fill_graph(world: World, network: Network, tasks: TaskTable, known: np.ndarray) -> None:
    """Write the graphs of the tasks, and put calls that need no other into the heap of calls to come.

    Args:
        world: of the network, with the calls in it.
        network: with room for the tasks, in which nothing has happened.
        tasks: what there is to do.
        known: f8[calls], output tokens as far as schedulers or routers are told.
    """
    before, after = tasks.edges[:, 0], tasks.edges[:, 1]
    network.waits_for[:] = np.bincount(after, minlength=len(tasks))
    network.first_next[1:] = np.cumsum(np.bincount(before, minlength=len(tasks)))
    network.next[:] = after[np.argsort(before, kind="stable")]
    network.delay[:] = tasks.delay
    network.pinned[:] = tasks.engine
    prompts = tasks.calls.prompt_tokens
    world.req.task[:] = tasks.task
    world.req.hop[:] = tasks.hops()
    world.req.path_left[:] = tasks.path_left(prompts + known)
    rows = world.tasks
    started, start = _start_users(network, tasks)
    rows.arrival[: tasks.num_tasks] = start
    rows.virtual_finish = np.inf
    np.add.at(rows.cost, tasks.task, prompts * known + known**2 / 2)
    np.add.at(rows.calls_left, tasks.task, 1)
    roots = np.flatnonzero((network.waits_for == 0) & started[tasks.task])
    ready = start[tasks.task[roots]] + tasks.delay[roots]
    world.hidden.ready[roots] = ready
    order = roots[np.argsort(ready, kind="stable")]  # sorted: already a heap
    network.calls[: len(order)] = order
    network.control.num_calls = len(order)


def _start_users(network: Network, tasks: TaskTable) -> tuple[np.ndarray, np.ndarray]:
    """Whether each task has a start, bool[T], and when, f8[T] s (inf: unknown)."""
    pool = tasks.pool
    network.first_call[: tasks.num_tasks + 1] = np.searchsorted(tasks.task, np.arange(tasks.num_tasks + 1))
    if pool is None:
        return np.ones(tasks.num_tasks, bool), tasks.arrival
    network.think[:] = pool.think
    control = network.control
    control.users, control.until, control.num_tasks = pool.users, pool.until, tasks.num_tasks
    control.has_more = int(pool.longer is not None)
    control.next_task = min(pool.users, tasks.num_tasks)
    started = (np.arange(tasks.num_tasks) < pool.users) & (pool.think < pool.until)
    return started, np.where(started, pool.think, np.inf)


def fill_classes(world: World, tasks: TaskTable) -> None:
    """Write the mean work of each class, and how often its calls lead to one of another."""
    rows, klass = world.classes, tasks.calls.klass
    calls = np.bincount(klass, minlength=len(rows))
    work = np.bincount(klass, weights=tasks.calls.prompt_tokens + tasks.calls.output_tokens, minlength=len(rows))
    rows.mean_work = work / np.maximum(1, calls)
    np.add.at(world.onward, (klass[tasks.edges[:, 0]], klass[tasks.edges[:, 1]]), 1.0)
    world.onward[:] /= np.maximum(1, calls)[:, None]
