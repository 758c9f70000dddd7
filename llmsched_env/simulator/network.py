"""A network of engines that serves tasks: loading, running, and reading the rows out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types

from llmsched_env.compiled import compiled_entry
from llmsched_env.compiled import interpreted as as_python
from llmsched_env.machine.config import EngineConfig
from llmsched_env.results.records import NetworkResult
from llmsched_env.simulator.guard import Guard
from llmsched_env.simulator.kv_cache import empty_cache
from llmsched_env.simulator.loop import BOUNDARY, DRAINED, HORIZON, RECORD_FULL, SELECT, STALLED
from llmsched_env.simulator.memory import seeded
from llmsched_env.simulator.network_graph import fill_classes, fill_graph
from llmsched_env.simulator.network_loop import BAD_ROUTE, LISTS_FULL, STARTS_AT_ONCE, TASKS_LOW, advance_network
from llmsched_env.simulator.network_state import NETWORK_TYPE, ROUTE_TYPE, continued, new_network
from llmsched_env.simulator.pacing import is_ours, paced, watched
from llmsched_env.simulator.pools import ROLES, Pools
from llmsched_env.simulator.recording import batch_rows, entry_rows, gap_rows, request_rows, with_longer_records
from llmsched_env.simulator.router import Router, compiled_route
from llmsched_env.simulator.scheduler import Scheduler, compiled_compose
from llmsched_env.simulator.simulator import (
    CACHE_TYPES,
    blocks_to_cache,
    check_can_choose,
    check_wakes,
    fill_requests,
    known_output,
    never_returns,
    reset_engine,
)
from llmsched_env.simulator.task_rows import task_rows
from llmsched_env.simulator.world import NUM_SLOTS, SCHEDULERS_TYPE, WORLD_TYPE, View, new_world, view_of
from llmsched_env.tables.task_table import TaskTable

_view_of = as_python(view_of)
_FIRST_CAPACITY = 64  # requests that the lists of an engine have room for at first


class NetworkSimulator:
    """Engines over one table of calls.

    Args:
        engines: each with its own batch times, memory and limits.
        schedulers: one for all engines, or one for each; at most 8 distinct ones.
        router: binds calls that are not pinned to an engine.
        record: "off", "requests", "batches" or "entries".
        pools: roles of the engines; None: all do both.
        interpreted: run everything as plain Python, for debugging; the rows are the same.
        debug: check every index of the schedulers, and what they write; see `guard.Guard`.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    def __init__(
        self,
        engines: Sequence[EngineConfig],
        schedulers: Scheduler | Sequence[Scheduler],
        router: Router,
        record: str = "batches",
        pools: Pools | None = None,
        interpreted: bool = False,
        debug: bool = False,
    ) -> None:
        self.engines = tuple(engines)
        if not self.engines:
            raise ValueError("engines must hold at least one EngineConfig, got none")
        self.scheduler_of = (
            (schedulers,) * len(self.engines) if isinstance(schedulers, Scheduler) else tuple(schedulers)
        )
        if len(self.scheduler_of) != len(self.engines):
            raise ValueError(
                f"schedulers must be one or one for each of {len(self.engines)} engines, got {len(self.scheduler_of)}"
            )
        self.router, self.record = router, record
        self.pools = Pools(("both",) * len(self.engines)) if pools is None else pools
        self.pools.check_engines(self.engines)
        distinct = list(dict.fromkeys(scheduler.compose for scheduler in self.scheduler_of))
        if len(distinct) > NUM_SLOTS:
            raise ValueError(f"schedulers must be at most {NUM_SLOTS} distinct ones, got {len(distinct)}")
        self._slots = [distinct.index(scheduler.compose) for scheduler in self.scheduler_of]
        python = interpreted or debug
        composes: list[Any] = [None if python else compiled_compose(compose) for compose in distinct]
        self.route: Any = None if python else compiled_route(router.route)
        self.interpreted = self.route is None or None in composes
        if self.interpreted:
            composes, self.route = [as_python(compose) for compose in distinct], as_python(router.route)
        if debug:
            composes = [Guard(self.scheduler_of[self._slots.index(slot)]) for slot in range(len(distinct))]
        self._bind_by(router)
        self.composes = tuple((composes * NUM_SLOTS)[:NUM_SLOTS])
        self._advance = self.kernel(advance_network, types.float64)

    def _bind_by(self, router: Router) -> None:
        """Note which router is asked, and which rules are not ours, so that they may not return."""
        self._binding = router
        named = [("scheduler", each.name, each.compose) for each in dict.fromkeys(self.scheduler_of)]
        rules = [*named, ("router", router.name, router.route)]
        self._theirs = [f"{kind} {name!r}" for kind, name, function in rules if not is_ours(function)]

    def kernel(self, function: Any, *argument_types: Any) -> Any:
        """`function(world, network, schedulers, route, ...)` in the mode of this simulator."""
        if self.interpreted:
            return as_python(function)
        signature = (WORLD_TYPE, NETWORK_TYPE, SCHEDULERS_TYPE, ROUTE_TYPE, *argument_types)
        return compiled_entry(function, signature)

    def load(self, tasks: TaskTable, seed: int = 0) -> None:
        """Go back to time 0 with these tasks to come.

        Raises:
            ValueError: if a call is pinned to an engine that there is not, or has a timeout with separate pools, or if
                tasks are drawn as needed where a prefix cache has unlimited memory.
        """
        cached = [engine.kv_blocks for engine in self.engines if engine.prefix_caching]
        if None in cached and tasks.pool is not None and tasks.pool.longer is not None:
            raise ValueError("kv_blocks must be a number for prefix caching in a closed loop, got None")
        self._fill(tasks)
        self._drawn_at = math.nan, 0
        for g, (engine, scheduler) in enumerate(zip(self.engines, self.scheduler_of, strict=True)):
            reset_engine(self.world, g, engine, scheduler, seed * len(self.engines) + g)
            self.world.engines[g].scheduler = self._slots[g]
            self.world.engines[g].networked = 1
            self.world.engines[g].hands_over = self.pools.hands_over(g)
            self.world.engines[g].next_event = np.inf
            if engine.prefix_caching:
                empty = as_python(empty_cache) if self.interpreted else compiled_entry(empty_cache, CACHE_TYPES)
                empty(self.world.cache_slots[g], self.world.cache_entries[g])
        self.network.rng[:] = seeded(seed)

    def _fill(self, tasks: TaskTable) -> None:
        """A new world and network with these tasks, in which nothing has happened; engines are not set up."""
        calls, pool = tasks.calls, tasks.pool
        wrong = np.flatnonzero(tasks.engine >= len(self.engines))
        if wrong.size:
            raise ValueError(f"engine[{wrong[0]}] must be below {len(self.engines)}, got {tasks.engine[wrong[0]]}")
        if "decode" in self.pools.roles and np.isfinite(calls.timeout).any():
            raise ValueError("timeout must be inf where prefill and decode have engines of their own")
        self.tasks = tasks
        columns = lambda kind: max(scheduler.memory_columns(kind) for scheduler in self.scheduler_of)  # noqa: E731
        self.world = new_world(
            len(self.engines),
            _FIRST_CAPACITY,
            num_params=max(len(scheduler.numbers()) for scheduler in self.scheduler_of),
            request_columns=columns("request"),
            client_columns=columns("client"),
            clients=int(calls.client.max(initial=0)) + 1 if pool is None else pool.users,
            engine_columns=columns("engine"),
            heap=any("heap" in scheduler.memory for scheduler in self.scheduler_of),
            cached_blocks=max(blocks_to_cache(engine, calls) for engine in self.engines),
            record=self.record,
            requests=len(calls),
            tasks=max(1, tasks.num_tasks),
            classes=int(calls.klass.max(initial=0)) + 1,
        )
        self.network = new_network(
            len(calls),
            len(tasks.edges),
            len(self.engines),
            max(1, tasks.num_tasks),
            len(self.router.numbers()),
            len(self.router.memory),
        )
        fill_requests(self.world, slice(0, len(calls)), calls, self._most_informed())
        known = np.nan_to_num(known_output(calls, self._most_informed()), nan=calls.output_tokens.mean())
        fill_graph(self.world, self.network, tasks, known)
        fill_classes(self.world, tasks)
        self._fill_engines()

    def _fill_engines(self) -> None:
        control, pools = self.network.control, self.pools
        self.network.role[:] = [ROLES.index(role) for role in pools.roles]
        control.handover_per_call, control.handover_per_token = pools.handover_per_call, pools.transfer_per_token
        self.network.params[:] = self.router.numbers()

    def _draw_more(self) -> None:
        """Put more tasks of the closed loop into the tables, after those that there are.

        Raises:
            ValueError: if all that were drawn the last time have been used up in no time.
        """
        pool, old_world, old_network = self.tasks.pool, self.world, self.network
        assert pool is not None and pool.longer is not None  # only such tasks run low
        if self._drawn_at == (self.clock, self.tasks.num_tasks):
            raise ValueError(
                f"tasks of a closed loop without think times must fit on the engines, got {self.tasks.num_tasks} in a "
                f"row up to {self.clock:g} s that were rejected at once"
            )
        least = int(old_network.control.next_task) + 2 * STARTS_AT_ONCE * pool.users
        self._fill(pool.longer(max(2 * self.tasks.num_tasks, least)))
        self._drawn_at = float(old_network.control.clock), self.tasks.num_tasks
        self.world, self.network = continued(old_world, old_network, self.world, self.network)

    def _most_informed(self) -> Scheduler:
        """The one of the schedulers (and the router) that is told most of output lengths."""
        order = ("no", "distribution", "predicted", "true")
        most = max((*self.scheduler_of, self.router), key=lambda each: order.index(each.needs_lengths))
        return Scheduler("informed", lambda view: math.inf, needs_lengths=most.needs_lengths)

    def advance(self, until: float) -> int:
        """Run all engines; see `network_loop.advance_network`. Grows lists and records as needed.

        Raises:
            ValueError: if a scheduler left a batch empty and asked to be woken at a time that is not ahead, or so often
                that time hardly moves; if it asked for a choice and has no controller that makes it; if the router sent
                a call to an engine that there is not, or that it may not go to; if one of them does not return.
        """
        while True:
            reason = self._advance_once(until)
            if reason == RECORD_FULL:
                self.world = with_longer_records(self.world)
            elif reason == LISTS_FULL:
                self._grow_lists()
            elif reason == TASKS_LOW:
                self._draw_more()
            elif reason == BAD_ROUTE:
                allowed = ", ".join(map(str, np.flatnonzero(self.network.allowed)))
                raise ValueError(
                    f"router {self._binding.name!r} must send a call to one of the engines {allowed}, got "
                    f"{int(self.network.control.at_engine)} at {self.clock:g} s"
                )
            elif reason == SELECT:
                check_can_choose(self.scheduler_of[int(self.network.control.at_engine)])
                return SELECT
            else:
                check_wakes(reason, self.scheduler_of[int(self.network.control.at_engine)], self.clock)
                return reason

    def _advance_once(self, until: float) -> int:
        recording, control = self.world.recording, self.network.control

        def call() -> int:
            return int(self._advance(self.world, self.network, self.composes, self.route, until))

        if self.interpreted:
            return call()
        if not self._theirs:
            return paced(recording, call)
        return watched(
            recording,
            call,
            lambda: (int(recording.decisions), float(control.clock), int(control.num_calls)),
            lambda: never_returns(" or ".join(self._theirs), float(control.clock)),
        )

    def run(self, until: float) -> int:
        """`advance` with the controllers of schedulers that have one: before batches, when asked, or at ticks.

        A learned scheduler decides for every engine by what it sees there.

        Raises:
            ValueError: if the users of a closed loop would go on for ever.
        """
        if until == math.inf and self.tasks.pool is not None and self.tasks.pool.endless:
            raise ValueError("horizon must be a number of seconds for a closed loop without a duration, got None")
        controllers = {
            g: scheduler.controller.fresh(self.engines[g])
            for g, scheduler in enumerate(self.scheduler_of)
            if scheduler.controller is not None
        }
        intervals = {g: each.interval for g, each in controllers.items() if each.interval is not None}
        for g in controllers.keys() - intervals.keys():
            self.world.engines[g].stops_to_decide = int(not self.scheduler_of[g].asks)
        due = dict.fromkeys(intervals, 0)
        while True:
            for g, interval in intervals.items():
                if due[g] * interval <= self.clock:
                    self.set_params(g, controllers[g].decide(self.view(g)))
                    due[g] += 1
            tick = min((due[g] * interval for g, interval in intervals.items()), default=math.inf)
            reason = self.advance(min(until, tick))
            if reason in (BOUNDARY, SELECT):
                g = int(self.network.control.at_engine)
                self.set_params(g, controllers[g].decide(self.view(g)))
            elif reason != HORIZON or self.clock >= until:
                return reason
            elif self.nothing_to_come and until == math.inf:
                return DRAINED

    @property
    def nothing_to_come(self) -> bool:
        """Whether no call is present and none will arrive."""
        present = self.world.engines.num_in_system.sum() + self.world.engines.num_events.sum()
        return bool(present == 0 and self.network.control.num_calls == 0)

    @property
    def nothing_happens(self) -> bool:
        """Whether no event is to come: all calls have left, or those present will never be served."""
        return bool(self.network.control.num_calls == 0 and np.isinf(self.world.engines.next_event).all())

    def set_params(self, g: int, values: np.ndarray) -> None:
        """Give engine `g`'s scheduler these parameters from its next batch on."""
        self.world.params[g, : len(values)] = values
        self.world.engines[g].decided = 1

    def use_router(self, router: Router, memory: np.ndarray) -> None:
        """Bind calls by another router from now on; `memory` f8[k] is what it keeps, and goes on with.

        What is known of output lengths stays as it was loaded.

        Raises:
            ValueError: if the simulator runs compiled, and numba cannot compile the router.
        """
        route = as_python(router.route) if self.interpreted else compiled_route(router.route)
        if route is None:
            raise ValueError(f"router {router.name!r} must be one that numba can compile, or interpreted be True")
        self.route = route
        self._bind_by(router)
        self.network = self.network._replace(params=router.numbers(), memory=memory)

    def view(self, g: int) -> View:
        """What the scheduler of engine `g` sees now."""
        view: View = _view_of(self.world, g)
        return view

    @property
    def clock(self) -> float:
        """Time of the network, s."""
        return float(self.network.control.clock)

    def _grow_lists(self) -> None:
        old = self.world
        capacity = old.waiting.shape[1]
        grown: dict[str, Any] = {}
        for name in _LISTS:
            a = getattr(old, name)
            if a.shape[-1] == capacity:
                grown[name] = np.concatenate([a, np.zeros_like(a)], axis=-1)
        self.world = old._replace(**grown)

    def result(self, name: str = "tasks", seed: int = 0, reason: int = HORIZON) -> NetworkResult:
        """The rows so far, of all engines."""
        return NetworkResult(
            requests=request_rows(self.world, self.tasks.calls, 0, range(len(self.engines)), self.tasks.task),
            tasks=task_rows(self.world, self.network, self.tasks, self.engines[0], self.clock),
            batches=batch_rows(self.world),
            batch_entries=self._entry_rows(),
            token_gaps=gap_rows(self.world),
            end=self.clock,
            stalled=reason == STALLED or self._nothing_to_come(),
            schedulers=tuple(scheduler.name for scheduler in self.scheduler_of),
            router=self.router.name,
            workload=name,
            seed=seed,
            engines=self.engines,
        )

    def _nothing_to_come(self) -> bool:
        """Whether calls are present and no event will ever happen."""
        return bool(self.world.engines.num_in_system.any() and self.nothing_happens)

    def _entry_rows(self) -> np.recarray | None:
        rows = entry_rows(self.world)
        if rows is not None:  # calls that have not become ready have no row
            rows.request = np.cumsum(~np.isnan(self.world.req.arrival))[rows.request] - 1
        return rows


_LISTS = (
    "waiting",
    "running",
    "arrived",
    "finished",
    "departed",
    "batch_requests",
    "batch_tokens",
    "batch_kinds",
    "batch_contexts",
    "events",
    "heap",
)
