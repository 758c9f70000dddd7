"""Engines side by side in one world: loading requests, advancing, and reading the rows out."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import types

from llmsched_env.simulator import state as s
from llmsched_env.simulator.advance import BAD_WAKE, RECORD_FULL, SELECT, STALLED, advance
from llmsched_env.simulator.compiled import interpreted
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.events import clock_to
from llmsched_env.simulator.loading import blocks_to_cache, fill_requests, reset_engine
from llmsched_env.simulator.prefix_cache import empty_cache, move_cache
from llmsched_env.simulator.records import Result
from llmsched_env.simulator.request_table import RequestTable
from llmsched_env.simulator.rows import batch_rows, entry_contexts, entry_rows, gap_rows, request_rows
from llmsched_env.simulator.scheduler import Scheduler, compiled_compose, interpreted_compose
from llmsched_env.simulator.state import View, World, new_world, view_of

_view_of = interpreted(view_of)
RECORDS = ("record_batches", "record_entries", "record_gaps")  # grow by themselves
_I1, _I2 = types.int64[::1], types.int64[:, ::1]


@cache
def compiled_entry(kernel: Any, signature: tuple) -> Callable:
    """`kernel` compiled for `signature`, or from the disk cache; without the dispatcher's per-call type checks."""
    kernel.compile(signature)
    return kernel.overloads[signature].entry_point


class Simulator:
    """`engines` equal engines, each with its own requests, under one scheduler.

    Args:
        engine: what each engine is.
        scheduler: what composes their batches.
        engines: how many.
        record: "off", "requests", "batches" or "entries": what the rows will hold.
        interpreted: run everything as plain Python, for debugging; the rows are the same.
    """

    def __init__(
        self,
        engine: EngineConfig,
        scheduler: Scheduler,
        engines: int = 1,
        record: str = "batches",
        interpreted: bool = False,
    ) -> None:
        self.engine = engine
        self.scheduler = scheduler
        self.num_engines = engines
        self.record = record
        compose = None if interpreted else compiled_compose(scheduler.compose)
        self.interpreted = compose is None
        if self.interpreted:
            compose = interpreted_compose(scheduler.compose)
        self.schedulers = (compose,) * s.NUM_SLOTS
        self._advance = self.kernel(advance, types.int64, types.float64)
        self._cached_blocks = 0
        self.world = self._new_world(capacity=0, clients=1)

    def kernel(self, function: Any, *argument_types: Any) -> Callable:
        """`function(world, schedulers, ...)` in the mode of this simulator."""
        if self.interpreted:
            return interpreted(function)
        return compiled_entry(function, (s.WORLD_TYPE, s.SCHEDULERS_TYPE, *argument_types))

    @property
    def capacity(self) -> int:
        """Requests that each engine has room for."""
        return self.world.waiting.shape[1]

    def _new_world(self, capacity: int, clients: int) -> World:
        columns = self.scheduler.memory_columns
        return new_world(
            self.num_engines,
            max(1, capacity),
            num_params=len(self.scheduler.numbers()),
            request_columns=columns("request"),
            client_columns=columns("client"),
            clients=clients,
            engine_columns=columns("engine"),
            heap="heap" in self.scheduler.memory,
            cached_blocks=self._cached_blocks,
            record=self.record,
        )

    def load(self, g: int, table: "RequestTable", seed: int = 0) -> None:
        """Put engine `g` back to time 0 with the requests of `table` to come."""
        clients = int(table.client.max(initial=0)) + 1
        cached = blocks_to_cache(self.engine, table)
        grows = len(table) > self.capacity or clients > self.world.client_memory.shape[1]
        if grows or cached > self._cached_blocks:
            self._cached_blocks = max(cached, self._cached_blocks)
            self._grow(len(table), clients)
        world, n = self.world, len(table)
        first = g * self.capacity
        fill_requests(world, slice(first, first + self.capacity), table, self.scheduler)
        reset_engine(world, g, self.engine, self.scheduler, seed)
        if g == 0:
            world.record_use[: s.RECORD_LEVEL] = 0
        if self.engine.prefix_caching:
            self._call(empty_cache, (_I1, _I2), world.cache_slots[g], world.cache_entries[g])
        world.events[g, :n] = np.arange(first, first + n)  # sorted by arrival: already a heap
        world.count[g, s.N_EVENTS] = n

    def _grow(self, capacity: int, clients: int) -> None:
        """Room for more requests; what other engines hold moves along."""
        old, old_capacity = self.world, self.capacity
        capacity = max(capacity, old_capacity + old_capacity // 4)
        new = self._new_world(capacity, max(clients, old.client_memory.shape[1]))
        shift = np.arange(self.num_engines)[:, None] * (new.waiting.shape[1] - old_capacity)
        for a, b in zip(
            (*new.req, *new.hidden, new.request_memory), (*old.req, *old.hidden, old.request_memory), strict=True
        ):
            by_engine = a.reshape(self.num_engines, new.waiting.shape[1], *a.shape[1:])
            by_engine[:, :old_capacity] = b.reshape(self.num_engines, old_capacity, *b.shape[1:])
        ours = new.req.parent.reshape(self.num_engines, -1)
        ours += np.where(ours < 0, 0, shift)
        indices = ("waiting", "running", "arrived", "finished", "events", "heap", "batch_requests")
        for name in World._fields[2:]:
            a, b = getattr(new, name), getattr(old, name)
            if name == "request_memory" or name in RECORDS or name.startswith("cache_"):  # moved, or below
                continue
            if name in indices:  # request numbers move with their engine's block of rows
                a[..., : b.shape[-1]] = b + (shift if b.ndim == 2 else shift[:, :, None])
            elif a.shape == b.shape:
                a[...] = b
            else:
                a[tuple(slice(n) for n in b.shape)] = b
        if self.engine.prefix_caching:
            for g in range(self.num_engines):
                caches = (old.cache_slots[g], old.cache_entries[g], new.cache_slots[g], new.cache_entries[g])
                self._call(move_cache, (_I1, _I2, _I1, _I2, types.int64), *caches, int(shift[g, 0]))
        entries = old.record_entries[: old.record_use[s.USED_ENTRIES]]
        if len(entries):
            entries[:, 1] += shift[entries[:, 5], 0]  # request numbers, by engine
        self.world = new._replace(**{name: getattr(old, name) for name in RECORDS})

    def _call(self, function: Any, signature: tuple, *arguments: Any) -> Any:
        """Call a compiled function in the mode of this simulator."""
        return (interpreted(function) if self.interpreted else compiled_entry(function, signature))(*arguments)

    def advance(self, g: int, until: float) -> int:
        """Run engine `g`; see `simulator.advance.advance`. Grows the records as needed.

        Raises:
            ValueError: if the scheduler left the batch empty and asked to be woken at a time that is not ahead, or
                asked for a choice, which only an environment can make.
        """
        while (reason := self._advance(self.world, self.schedulers, g, until)) == RECORD_FULL:
            self.grow_records()
        if reason == BAD_WAKE:
            raise ValueError(
                f"scheduler {self.scheduler.name!r} composed an empty batch at {self.clock(g):g} s and asked to be "
                "woken at a time that is not later; return a later time (s) or inf for the next arrival"
            )
        if reason == SELECT:
            raise ValueError(
                f"scheduler {self.scheduler.name!r} asks for a choice within a batch, which an agent makes in "
                "llmsched/RequestSelection-v0; simulate another scheduler"
            )
        return reason

    def clock(self, g: int) -> float:
        """Time of engine `g`, s."""
        return float(self.world.time[g, s.CLOCK])

    def clock_to(self, g: int, time: float) -> None:
        """Let an engine with nothing left to do stand idle until `time`."""
        self._call(clock_to, (s.WORLD_TYPE, types.int64, types.float64), self.world, g, time)

    def view(self, g: int) -> View:
        """What the scheduler of engine `g` sees now."""
        return _view_of(self.world, g)

    def set_params(self, g: int, values: np.ndarray) -> None:
        """Give engine `g`'s scheduler these parameters from its next batch on."""
        self.world.params[g] = values
        self.world.count[g, s.DECIDED] = 1

    def decide_every_batch(self, g: int) -> None:
        """Make `advance` stop with BOUNDARY before every batch of engine `g` until its parameters are set."""
        self.world.count[g, s.DECIDE] = 1

    def grow_records(self) -> None:
        """Double the room for records that might not take what `room_in_records` asks for, keeping what is written."""

        def doubled(rows: np.ndarray) -> np.ndarray:
            return np.concatenate([rows, np.zeros((max(len(rows), self.capacity),) + rows.shape[1:], rows.dtype)])

        use, level = self.world.record_use, self.world.record_use[s.RECORD_LEVEL]
        grown = {}
        for place, name, needed in (
            (s.USED_BATCHES, "record_batches", 2),
            (s.USED_ENTRIES, "record_entries", 3),
            (s.USED_GAPS, "record_gaps", 1),
        ):
            rows = getattr(self.world, name)
            if level >= needed and use[place] + 2 * self.num_engines * self.capacity > len(rows):
                grown[name] = doubled(rows)
        self.world = self.world._replace(**grown)

    def result(
        self, g: int, table: "RequestTable", workload: str, seed: int = 0, reason: int = 0, **about: Any
    ) -> Result:
        """The rows of engine `g` so far; batches are those of all engines.

        Args:
            g: the engine.
            table: what was loaded into it.
            workload: name of the workload.
            seed: its seed.
            reason: why `advance` stopped.
            about: `capacity` and `load`, if known.
        """
        return Result(
            requests=request_rows(self.world, table, g * self.capacity, (g,)),
            batches=batch_rows(self.world),
            batch_entries=entry_rows(self.world),
            token_gaps=gap_rows(self.world),
            end=self.clock(g),
            stalled_since=float(self.world.time[g, s.STALLED_SINCE]) if reason == STALLED else float("nan"),
            scheduler=self.scheduler.name,
            workload=workload,
            seed=seed,
            engine=self.engine,
            entry_contexts=entry_contexts(self.world),
            decision_time=self.scheduler.decision_time,
            **about,
        )
