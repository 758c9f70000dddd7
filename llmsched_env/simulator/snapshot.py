"""Copies of engines and networks under way: taken once, gone on from as often as wanted, also at another engine.

What there is to copy follows from the fields of `World` and `Network`, so that a new one is part of every copy.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types

from llmsched_env.fields import Records, records, words
from llmsched_env.simulator.kv_cache import empty_cache, move_cache
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.network_state import Network
from llmsched_env.simulator.recording import RECORDS
from llmsched_env.simulator.simulator import CACHE_TYPES, Simulator
from llmsched_env.simulator.state import block_of
from llmsched_env.simulator.world import REQUEST_LISTS, World
from llmsched_env.tables.task_table import TaskTable

BY_REQUEST = ("req", "hidden", "request_memory")
OF_NETWORKS = ("tasks", "classes", "onward")  # which single engines do not write
CACHE = ("cache_slots", "cache_entries")
BATCHES = ("batch_requests", "batch_tokens", "batch_kinds", "batch_contexts")
LISTS = ("waiting", "running", "arrived", "finished", "departed", "events", *BATCHES)  # of which only a part is in use
BY_ENGINE = tuple(
    name
    for name in World._fields
    if name not in (*BY_REQUEST, *OF_NETWORKS, *CACHE, *LISTS, *RECORDS, "recording_record")
)


@dataclass(frozen=True, slots=True, eq=False)
class EngineSnapshot:
    """One engine of a `Simulator` under way; read-only arrays.

    Attributes:
        first: the row of the world at which its block of requests began.
        cached_blocks: that its prefix cache has room for.
        requests: i8[columns, requests], its block of `block_of`.
        request_memory: its block of that array.
        engine: its row of every array `BY_ENGINE`.
        lists: of every array `LISTS`, what is in use.
        cache: its row of the arrays `CACHE`.
        records: how many rows of `RECORDS` have been written, and those; empty where nothing is recorded.
        room: rows that `RECORDS` have room for, which batches under way may count on.
    """

    first: int
    cached_blocks: int
    requests: np.ndarray
    request_memory: np.ndarray
    engine: tuple[np.ndarray, ...]
    lists: tuple[np.ndarray, ...]
    cache: tuple[np.ndarray, ...]
    records: tuple[np.ndarray, ...]
    room: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class NetworkSnapshot:
    """A `NetworkSimulator` under way.

    Attributes:
        tasks: what was loaded.
        world: read-only copies; of `RECORDS`, of the rows that have been written.
        network: read-only copies.
        room: as in `EngineSnapshot`.
    """

    tasks: TaskTable
    world: World
    network: Network
    room: tuple[int, ...]


def clone_engine(simulator: Simulator, g: int) -> EngineSnapshot:
    """What engine `g` is in the middle of.

    Raises:
        ValueError: if several engines share the rows of a record.
    """
    _check_alone(simulator)
    world, size = simulator.world, simulator.capacity
    block, row = slice(g * size, (g + 1) * size), slice(g, g + 1)
    return EngineSnapshot(
        first=block.start,
        cached_blocks=world.cache_entries.shape[1] - 1,
        requests=_frozen(block_of(world.req)[:, block]),
        request_memory=_frozen(world.request_memory[block]),
        engine=_copies(getattr(world, name)[row] for name in BY_ENGINE),
        lists=_copies(_in_use(world, g)),
        cache=_copies(getattr(world, name)[row] for name in CACHE),
        records=() if simulator.record == "off" else _copies((world.recording_record, *_written(world))),
        room=_room(world),
    )


def restore_engine(simulator: Simulator, g: int, state: EngineSnapshot) -> None:
    """Let engine `g` go on from `state`, taken of an engine of an equal simulator; makes room where it lacks.

    Raises:
        ValueError: if several engines share the rows of a record.
    """
    _check_alone(simulator)
    rows = dict(zip(BY_ENGINE, state.engine, strict=True))
    simulator.make_room(state.requests.shape[1], rows["client_memory"].shape[1], state.cached_blocks)
    world, size = simulator.world, simulator.capacity
    block, row = slice(g * size, (g + 1) * size), slice(g, g + 1)
    _put(block_of(world.req)[:, block], state.requests)
    _put(world.request_memory[block], state.request_memory)
    for name, saved in rows.items():
        _put(getattr(world, name)[row], saved)
    for array, saved in zip(_in_use(world, g), state.lists, strict=True):
        array[...] = saved
    shift = block.start - state.first
    if shift != 0:
        _renumber(world, g, block, shift)
    _restore_cache(simulator, g, state.cache, shift)
    if state.records:
        simulator.world = _with_records(world, state.records, state.room)


def _check_alone(simulator: Simulator) -> None:
    if simulator.record != "off" and simulator.num_engines > 1:
        raise ValueError(f"record must be 'off' for states of one of several engines, got {simulator.record!r}")


def _in_use(world: World, g: int) -> tuple[np.ndarray, ...]:
    """What is in use of each of the `LISTS` of engine `g`."""
    engine, batches = world.engines[g], world.batch_counts[g]
    head, most = engine.waiting_head, max(engine.num_ended, int(batches.num_seqs.max()))
    return (
        world.waiting[g, head : head + engine.num_waiting],
        world.running[g, : engine.num_running],
        world.arrived[g, : engine.num_arrived],
        world.finished[g, : engine.num_finished],
        world.departed[g, : engine.num_departed],
        world.events[g, : engine.num_events],
        *(getattr(world, name)[g, :, :most] for name in BATCHES),
    )


def _renumber(world: World, g: int, block: slice, shift: int) -> None:
    """Add `shift` to all numbers of requests of engine `g`, which is where its rows have moved."""
    parents = world.req.parent[block]
    parents[parents >= 0] += shift
    for name in REQUEST_LISTS:
        getattr(world, name)[g] += shift


def clone_network(simulator: NetworkSimulator) -> NetworkSnapshot:
    """What a network is in the middle of. The router that binds its calls is not part of it, but what it remembers."""
    world = simulator.world
    written: dict[str, Any] = dict(zip(RECORDS, _written(world), strict=True))
    kept = _map(_frozen, world._replace(**written))
    return NetworkSnapshot(simulator.tasks, kept, _map(_frozen, simulator.network), _room(world))


def restore_network(simulator: NetworkSimulator, state: NetworkSnapshot) -> None:
    """Let a network go on from `state`, taken of an equal one."""
    simulator.tasks = state.tasks
    simulator.world, simulator.network = _map(_copy, state.world), _map(_copy, state.network)
    longer: dict[str, Any] = {}
    for name, length in zip(RECORDS, state.room, strict=True):
        written = getattr(state.world, name)
        longer[name] = records(written.dtype, length)
        _put(longer[name][: len(written)], words(written))
    simulator.world = simulator.world._replace(**longer)


def _written(world: World) -> tuple[np.ndarray, ...]:
    """The rows of `RECORDS` that have been written."""
    return tuple(getattr(world, name)[: int(world.recording[name.replace("record", "num")])] for name in RECORDS)


def _room(world: World) -> tuple[int, ...]:
    return tuple(len(getattr(world, name)) for name in RECORDS)


def _copy(array: np.ndarray) -> np.ndarray:
    return words(array).copy().view(array.dtype, type(array))


def _frozen(array: np.ndarray) -> np.ndarray:
    copy = _copy(array)
    copy.setflags(write=False)
    return copy


def _copies(arrays: Iterable[np.ndarray]) -> tuple[np.ndarray, ...]:
    return tuple([_frozen(words(array)) for array in arrays])


def _map(function: Any, arrays: Any) -> Any:
    """A named tuple of arrays, and of such tuples, with `function` applied to every array."""
    return type(arrays)(*(_map(function, each) if isinstance(each, tuple) else function(each) for each in arrays))


def _put(array: np.ndarray, saved: np.ndarray) -> None:
    """Write `saved` to the first places of `array`, and zeros to the others."""
    array = words(array)
    if array.shape != saved.shape:
        array[...] = 0
    array[tuple([slice(n) for n in saved.shape])] = saved


def _restore_cache(simulator: Simulator, g: int, saved: tuple[np.ndarray, ...], shift: int) -> None:
    """Fill the prefix cache of engine `g`; blocks are filed by the number of the request that owns them."""
    slots, entries = (getattr(simulator.world, name)[g] for name in CACHE)
    old_slots, old_entries = saved[0][0], saved[1][0].view(entries.dtype, Records)
    if shift == 0 and old_slots.shape == slots.shape and old_entries.shape == entries.shape:
        _put(slots, old_slots)
        _put(entries, words(old_entries))
    elif simulator.engine.prefix_caching:
        simulator.call(empty_cache, CACHE_TYPES, slots, entries)
        caches = (old_slots, old_entries, slots, entries)
        simulator.call(move_cache, (*CACHE_TYPES, *CACHE_TYPES, types.int64), *caches, shift)


def _with_records(world: World, saved: tuple[np.ndarray, ...], room: tuple[int, ...]) -> World:
    """The world with these rows written, in longer arrays where they lack room."""
    _put(world.recording_record, saved[0])
    longer: dict[str, Any] = {}
    for name, written, length in zip(RECORDS, saved[1:], room, strict=True):
        array = getattr(world, name)
        if len(array) < length:
            array = longer[name] = records(array.dtype, length)
        _put(array[: written.nbytes // array.itemsize], written)
    return world._replace(**longer)
