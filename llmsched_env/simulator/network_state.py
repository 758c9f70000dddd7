"""The state of a network of engines: calls to come, what they wait for, and what a router sees."""

from typing import Any, NamedTuple

import numpy as np
from numba import typeof, types

from llmsched_env.fields import Records, record_attributes, record_dtype, records
from llmsched_env.simulator.state import Requests
from llmsched_env.simulator.world import World, new_world

record_attributes("control")


CONTROL = record_dtype(  # `Network.control`
    ("clock", "f8"),  # s
    ("handover_per_call", "f8"),  # s of handing a call from prefill to decode: scheduling at both ends and the move,
    ("handover_per_token", "f8"),  # and s for each token of KV
    ("num_calls", "i8"),  # calls in the heap of those to come
    ("routing", "i8"),  # the call that a router outside is asked for, plus 1; 0: none
    ("choice", "i8"),  # its answer, plus 1; 0: none yet
    ("asks_outside", "i8"),  # 1: routing decisions are taken outside
    ("at_engine", "i8"),  # the engine that `advance_network` stopped at
    # Of a closed loop:
    ("users", "i8"),  # 0: tasks arrive by themselves
    ("next_task", "i8"),  # the task that the next user starts who is free
    ("num_tasks", "i8"),  # in the table
    ("until", "f8"),  # s, when the last task may start
    ("has_more", "i8"),  # 1: more tasks can be drawn
)

OUTSTANDING = record_dtype(  # `Network.outstanding`: what an engine has been given and has not finished
    ("calls", "f8"),
    ("prompt_tokens", "f8"),
    ("known_work", "f8"),  # prompt tokens and known output tokens
)

BOTH, PREFILL_ONLY, DECODE_ONLY = range(3)  # `Network.role` of an engine


class Network(NamedTuple):
    """Engines over one table of calls. Shapes: [n] by call, [G] by engine, [T] by task."""

    waits_for: np.ndarray  # i8[n]: calls before it that have not finished
    first_next: np.ndarray  # i8[n + 1]: the calls after call i are next[first_next[i] : first_next[i + 1]]
    next: np.ndarray
    delay: np.ndarray  # f8[n]: s between the end of the last call before it and its own arrival
    pinned: np.ndarray  # i8[n]: the engine it must go to; -1: the router's choice
    done_before: np.ndarray  # f8[n]: tokens on the longest path that leads to it
    calls: np.ndarray  # i8[n]: heap of calls to come, by `hidden.ready`
    task_finish: np.ndarray  # f8[T]: s
    first_call: np.ndarray  # i8[T + 1]: the calls of task t are first_call[t], ..., first_call[t + 1] - 1
    think: np.ndarray  # f8[T]: s that its user thinks before
    ended: np.ndarray  # i8[T]: 1: its user has gone on
    outstanding: Records  # OUTSTANDING[G]
    role: np.ndarray  # i8[G]
    touched: np.ndarray  # i8[G]: 1: something happens there now
    allowed: np.ndarray  # i8[G]: 1: the call being routed may go there
    control_record: Records  # CONTROL[1]
    params: np.ndarray  # f8[p + w] of the router: its parameters, then its weights
    memory: np.ndarray  # f8[k] of the router
    rng: np.ndarray  # u8[2] of the router

    @property
    def control(self) -> Any:
        return self.control_record[0]


OF_TABLE = (
    *("waits_for", "first_next", "next", "delay", "pinned", "done_before", "calls"),
    *("task_finish", "first_call", "think", "ended"),
)
"""The arrays of a `Network` that have an entry for each call, edge or task."""


class Fleet(NamedTuple):
    """What `route(fleet, i)` sees: all engines as call `i` becomes ready; it returns the number of one."""

    req: Requests
    engines: Records  # ENGINE[G], see `simulator.state`
    kv: Records  # KV_COUNTS[G]
    totals: Records  # TOTALS[G]
    law: Records  # LAW[G]: batch times of each as routers believe them to be, see `machine.batch_time`
    cache_slots: np.ndarray
    cache_entries: np.ndarray
    outstanding: Records  # OUTSTANDING[G]
    allowed: np.ndarray  # i8[G]: 1: the call may go there
    clock: float  # s
    params: np.ndarray  # f8[p + w]: parameters, then weights
    memory: np.ndarray  # f8[k]
    rng: np.ndarray  # u8[2]


def new_network(calls: int, edges: int, engines: int, tasks: int, params: int = 0, memory: int = 0) -> Network:
    """A network without anything in it."""
    return Network(
        waits_for=np.zeros(calls, np.int64),
        first_next=np.zeros(calls + 1, np.int64),
        next=np.zeros(edges, np.int64),
        delay=np.zeros(calls),
        pinned=np.full(calls, -1),
        done_before=np.zeros(calls),
        calls=np.zeros(calls, np.int64),
        task_finish=np.full(tasks, np.nan),
        first_call=np.zeros(tasks + 1, np.int64),
        think=np.zeros(tasks),
        ended=np.zeros(tasks, np.int64),
        outstanding=records(OUTSTANDING, engines),
        role=np.zeros(engines, np.int64),
        touched=np.zeros(engines, np.int64),
        allowed=np.zeros(engines, np.int64),
        control_record=records(CONTROL),
        params=np.zeros(params),
        memory=np.zeros(memory),
        rng=np.zeros(2, np.uint64),
    )


def continued(old_world: World, old: Network, world: World, network: Network) -> tuple[World, Network]:
    """The old world and network, with those calls and tasks after theirs that the new ones have."""
    pairs = [*zip((*world.req, *world.hidden), (*old_world.req, *old_world.hidden), strict=True)]
    pairs += [(getattr(world, name), getattr(old_world, name)) for name in ("request_memory", "tasks")]
    pairs += [(getattr(network, name), getattr(old, name)) for name in OF_TABLE]
    for longer, array in pairs:
        longer[: len(array)] = array
    world.classes.present[: len(old_world.classes)] = old_world.classes.present
    old.control.num_tasks, old.control.has_more = network.control.num_tasks, network.control.has_more
    of_table = {
        name: getattr(world, name) for name in ("req", "hidden", "request_memory", "tasks", "classes", "onward")
    }
    return old_world._replace(**of_table), old._replace(**{name: getattr(network, name) for name in OF_TABLE})


_world, _network = new_world(1, 1), new_network(1, 0, 1, 1)
NETWORK_TYPE = typeof(_network)
FLEET_TYPE = typeof(
    Fleet(
        _world.req,
        _world.engines,
        _world.kv,
        _world.totals,
        _world.believed_law,
        _world.cache_slots,
        _world.cache_entries,
        _network.outstanding,
        _network.allowed,
        0.0,
        _network.params,
        _network.memory,
        _network.rng,
    )
)
ROUTE_TYPE = types.FunctionType(types.int64(FLEET_TYPE, types.int64))
