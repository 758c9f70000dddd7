"""Engines in one world: loading requests, advancing, and reading the rows out."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import typeof, types

from llmsched_env.compiled import compiled_entry
from llmsched_env.compiled import interpreted as as_python
from llmsched_env.fields import records
from llmsched_env.machine.config import EngineConfig
from llmsched_env.results.records import Result
from llmsched_env.simulator.guard import Guard
from llmsched_env.simulator.kv_cache import empty_cache, move_cache
from llmsched_env.simulator.loop import BAD_WAKE, RECORD_FULL, SELECT, STALLED, STUCK, advance_alone, clock_to
from llmsched_env.simulator.memory import seeded
from llmsched_env.simulator.pacing import SECONDS_TO_RETURN, is_ours, paced, watched
from llmsched_env.simulator.recording import (
    RECORDS,
    batch_rows,
    entry_contexts,
    entry_rows,
    gap_rows,
    request_rows,
    with_longer_records,
)
from llmsched_env.simulator.scheduler import Scheduler, compiled_compose
from llmsched_env.simulator.state import CACHE_ENTRY, UNLIMITED
from llmsched_env.simulator.world import COMPOSE_TYPE, REQUEST_LISTS, WORLD_TYPE, View, World, new_world, view_of
from llmsched_env.tables.request_table import RequestTable

_view_of = as_python(view_of)
CACHE_TYPES = (types.int64[::1], typeof(records(CACHE_ENTRY)))


class Simulator:
    """`engines` equal engines, each with its own requests, under one scheduler.

    Args:
        engine: what each engine is.
        scheduler: what composes their batches.
        engines: how many.
        record: "off", "requests", "batches" or "entries": what the rows will hold.
        interpreted: run everything as plain Python, for debugging; the rows are the same.
        debug: check every index of the scheduler, and what it writes; see `guard.Guard`.
    """

    def __init__(
        self,
        engine: EngineConfig,
        scheduler: Scheduler,
        engines: int = 1,
        record: str = "batches",
        interpreted: bool = False,
        debug: bool = False,
    ) -> None:
        self.engine = engine
        self.scheduler = scheduler
        self.num_engines = engines
        self.record = record
        pointer = None if interpreted or debug else compiled_compose(scheduler.compose)
        self.interpreted = pointer is None
        self.compose: Any = as_python(scheduler.compose) if pointer is None else pointer
        if debug:
            self.compose = Guard(scheduler)
        self._returns = is_ours(scheduler.compose)
        self._advance = self.kernel(advance_alone, types.int64, types.float64)
        self._cached_blocks = 0
        self.world = self._new_world(capacity=0, clients=1)

    def kernel(self, function: Any, *argument_types: Any) -> Callable[..., Any]:
        """`function(world, compose, ...)` in the mode of this simulator."""
        if self.interpreted:
            return as_python(function)
        return compiled_entry(function, (WORLD_TYPE, COMPOSE_TYPE, *argument_types))

    @property
    def capacity(self) -> int:
        """Requests that each engine has room for."""
        return int(self.world.waiting.shape[1])

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

    def load(self, g: int, table: RequestTable, seed: int = 0) -> None:
        """Put engine `g` back to time 0 with the requests of `table` to come."""
        self.make_room(len(table), int(table.client.max(initial=0)) + 1, blocks_to_cache(self.engine, table))
        world, n = self.world, len(table)
        first = g * self.capacity
        fill_requests(world, slice(first, first + self.capacity), table, self.scheduler)
        reset_engine(world, g, self.engine, self.scheduler, seed)
        if g == 0:
            recording = world.recording
            recording.num_batches = recording.num_entries = recording.num_gaps = 0
        if self.engine.prefix_caching:
            self.call(empty_cache, CACHE_TYPES, world.cache_slots[g], world.cache_entries[g])
        world.events[g, :n] = np.arange(first, first + n)  # sorted by arrival: already a heap
        world.engines[g].num_events = n

    def make_room(self, requests: int, clients: int, cached_blocks: int) -> None:
        """Have room at every engine for this many requests, clients and blocks in the prefix cache."""
        grows = requests > self.capacity or clients > self.world.client_memory.shape[1]
        if grows or cached_blocks > self._cached_blocks:
            self._cached_blocks = max(cached_blocks, self._cached_blocks)
            self._grow(requests, clients)

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
        for name in World._fields[2:]:
            a, b = getattr(new, name), getattr(old, name)
            if name == "request_memory" or name in RECORDS or name.startswith("cache_"):  # moved, or below
                continue
            if name in REQUEST_LISTS:  # request numbers move with their engine's block of rows
                a[..., : b.shape[-1]] = b + (shift if b.ndim == 2 else shift[:, :, None])
            elif a.shape == b.shape:
                a[...] = b
            else:
                a[tuple(slice(n) for n in b.shape)] = b
        if self.engine.prefix_caching:
            for g in range(self.num_engines):
                caches = (old.cache_slots[g], old.cache_entries[g], new.cache_slots[g], new.cache_entries[g])
                self.call(move_cache, (*CACHE_TYPES, *CACHE_TYPES, types.int64), *caches, int(shift[g, 0]))
        entries = old.record_entries[: old.recording.num_entries]
        if len(entries):
            entries["request"] += shift[entries["engine"], 0]
        self.world = new._replace(**{name: getattr(old, name) for name in RECORDS})

    def call(self, function: Any, signature: tuple[Any, ...], *arguments: Any) -> Any:
        """Call a compiled function in the mode of this simulator."""
        return (as_python(function) if self.interpreted else compiled_entry(function, signature))(*arguments)

    def advance(self, g: int, until: float) -> int:
        """Run engine `g`; see `simulator.loop.advance`. Grows the records as needed.

        Raises:
            ValueError: if the scheduler left the batch empty and asked to be woken at a time that is not ahead, or so
                often that time hardly moves; if it asked for a choice and has no controller that makes it, or does not
                return.
        """
        while (reason := self._advance_once(g, until)) == RECORD_FULL:
            self.grow_records()
        check_wakes(reason, self.scheduler, self.clock(g))
        if reason == SELECT:
            check_can_choose(self.scheduler)
        return int(reason)

    def _advance_once(self, g: int, until: float) -> int:
        recording, engine = self.world.recording, self.world.engines[g]

        def call() -> int:
            return int(self._advance(self.world, self.compose, g, until))

        if self.interpreted:
            return call()
        if self._returns:
            return paced(recording, call)
        return watched(
            recording,
            call,
            lambda: (int(recording.decisions), float(engine.clock)),
            lambda: never_returns(f"scheduler {self.scheduler.name!r}", float(engine.clock)),
        )

    def clock(self, g: int) -> float:
        """Time of engine `g`, s."""
        return float(self.world.engines[g].clock)

    def clock_to(self, g: int, time: float) -> None:
        """Let an engine with nothing left to do stand idle until `time`."""
        self.call(clock_to, (WORLD_TYPE, types.int64, types.float64), self.world, g, time)

    def view(self, g: int) -> View:
        """What the scheduler of engine `g` sees now."""
        view: View = _view_of(self.world, g)
        return view

    def set_params(self, g: int, values: np.ndarray) -> None:
        """Give engine `g`'s scheduler these parameters from its next batch on."""
        self.world.params[g] = values
        self.world.engines[g].decided = 1

    def decide_every_batch(self, g: int) -> None:
        """Make `advance` stop with BOUNDARY before every batch of engine `g` until its parameters are set."""
        self.world.engines[g].stops_to_decide = 1

    def grow_records(self) -> None:
        """Make room for the rows that `room_in_records` asks for, keeping what is written."""
        self.world = with_longer_records(self.world)

    def result(
        self, g: int, table: RequestTable, workload: str, seed: int = 0, reason: int = 0, **about: Any
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
            stalled_since=float(self.world.engines[g].stalled_since) if reason == STALLED else float("nan"),
            scheduler=self.scheduler.name,
            workload=workload,
            seed=seed,
            engine=self.engine,
            entry_contexts=entry_contexts(self.world),
            decision_time=self.scheduler.decision_time,
            **about,
        )


def check_wakes(reason: int, scheduler: Scheduler, clock: float) -> None:
    """Whether `advance` has stopped, at `clock`, for a scheduler that asks to be woken when it must not.

    Raises:
        ValueError: if it has.
    """
    what = {
        BAD_WAKE: "asked to be woken at a time that is not later",
        STUCK: "has asked to be woken so often since that time hardly moves",
    }
    if reason in what:
        raise ValueError(
            f"scheduler {scheduler.name!r} composed an empty batch at {clock:g} s and {what[reason]}; return a later "
            "time (s) or inf for the next arrival"
        )


def never_returns(rule: str, clock: float) -> str:
    """What to tell of a rule that has been asked at `clock` and does not answer."""
    return f"{rule} has been asked at {clock:g} s and has not returned for {SECONDS_TO_RETURN:g} s of real time"


def check_can_choose(scheduler: Scheduler) -> None:
    """Whether a scheduler that has asked for a choice within a batch has a controller that makes it.

    Raises:
        ValueError: if it has none.
    """
    if scheduler.controller is None or not scheduler.asks:
        raise ValueError(
            f"scheduler {scheduler.name!r} asks for a choice within a batch, which an agent makes in "
            "llmsched/RequestSelection-v0; simulate another scheduler, or a policy for it (as_scheduler)"
        )


_UNKNOWN = ("arrival", "first_token", "last_token_time", "first_scheduled", "finish", "left")


def fill_requests(world: World, rows: slice, table: RequestTable, scheduler: Scheduler) -> None:
    """Write the requests of `table` to the first of these rows of the world, which are blank after them."""
    req, hidden = world.req, world.hidden
    for column in (*req, *hidden, world.request_memory):
        column[rows] = 0
    rows = slice(rows.start, rows.start + len(table))
    for name in _UNKNOWN:
        getattr(req if hasattr(req, name) else hidden, name)[rows] = np.nan
    for name in ("prompt_tokens", "client", "klass", "priority", "session", "shared_tokens", "ttft_slo", "tpot_slo"):
        getattr(req, name)[rows] = getattr(table, name)
    req.prefill_tokens[rows] = table.prompt_tokens
    req.parent[rows] = np.where(table.parent < 0, -1, table.parent + rows.start)
    req.known_output[rows] = known_output(table, scheduler)
    req.task[rows] = 0
    hidden.timeout[rows] = table.timeout
    hidden.ready[rows] = table.arrival
    hidden.output_tokens[rows] = hidden.leave_after[rows] = table.output_tokens


def known_output(table: RequestTable, scheduler: Scheduler) -> np.ndarray:
    """f8[n]: what the scheduler is told of output lengths: nothing (nan), predictions, or the truth."""
    if scheduler.needs_lengths == "predicted":
        return table.predicted_output
    if scheduler.needs_lengths == "true":
        return table.output_tokens.astype(np.float64)
    return np.full(len(table), np.nan)


def reset_engine(world: World, g: int, engine: EngineConfig, scheduler: Scheduler, seed: int) -> None:
    """Put engine `g` back to time 0, idle, with nothing to come."""
    for array in (world.client_memory, world.engine_memory, world.heap):
        array[g] = 0
    for array in (world.batch_counts, world.totals, world.engines):
        array[g] = np.zeros((), array.dtype)
    world.rng[g] = seeded(seed)
    world.noise_rng[g] = seeded((seed, _NOISE))
    for laws, law in ((world.law, engine.law()), (world.believed_law, engine.believed_law())):
        laws[g] = law[0]
        laws[g].host_batch += scheduler.decision_time[0]
        laws[g].decide_request += scheduler.decision_time[1]
    params = scheduler.numbers()
    world.params[g, : len(params)] = params
    blocks = UNLIMITED if engine.kv_blocks is None else engine.kv_blocks
    kv = world.kv[g]
    kv.free = kv.total = blocks
    kv.block_size = engine.block_size
    kv.cached = 0
    kv.prefix_caching = engine.prefix_caching
    kv.swap_free = engine.swap_blocks
    state = world.engines[g]
    state.stalled_since = np.nan
    state.token_budget = engine.token_budget
    state.max_num_seqs = UNLIMITED if engine.max_num_seqs is None else engine.max_num_seqs
    state.max_model_len = UNLIMITED if engine.max_model_len is None else engine.max_model_len
    state.step_noise = engine.step_noise
    state.separate = engine.separate
    state.schedule_ahead = engine.schedule_ahead
    state.ended = 2  # any but the one that is built first
    places = scheduler.limit_places()
    state.token_budget_param, state.max_num_seqs_param, state.max_num_active_seqs_param = places


_NOISE = 1  # tells the stream of step noise from the scheduler's


def blocks_to_cache(engine: EngineConfig, table: RequestTable) -> int:
    """Most blocks that its prefix cache may come to hold; with unlimited memory, all that there will be."""
    if not engine.prefix_caching:
        return 0
    if engine.kv_blocks is not None:
        return engine.kv_blocks
    return int(np.sum((table.prompt_tokens + table.output_tokens) // engine.block_size))
