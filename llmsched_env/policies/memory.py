"""What learned policies keep from batch to batch, and are set to, by name: numbers, arrays, and records in a record."""

from typing import Any

import numpy as np

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.fields import field_names

_CELL = np.dtype(np.float64).itemsize


def record_of(*numbers: str, **arrays: int | tuple[int, ...] | np.dtype) -> np.dtype:
    """A record of float64 fields: `numbers`, then `arrays` of a length or shape, or records (a dtype).

    `record_of("clock", patience=9)` has `memory.clock` and `memory.patience[k]`.
    """
    fields: list[Any] = [(name, np.float64) for name in numbers]
    for name, size in arrays.items():
        fields.append((name, size) if isinstance(size, np.dtype) else (name, np.float64, size))
    return np.dtype((np.record, np.dtype(fields)))


def cells(record: np.dtype) -> tuple[str, ...]:
    """A name for each number of a record, as a scheduler or router declares its memory."""
    return tuple(
        name if size == _CELL else f"{name}_{k}"
        for name in field_names(record)
        for size in [record[name].itemsize]
        for k in range(size // _CELL)
    )


def engine_record(record: np.dtype) -> Any:
    """A compiled function of the view that gives a scheduler's engine memory as this record."""
    n = record.itemsize // _CELL

    @compiled(inline=True)
    def read(view: Any) -> Any:
        return view.mem.engine[:n].view(record)[0]

    return read


def router_record(record: np.dtype) -> Any:
    """A compiled function of the fleet that gives a router's memory as this record."""
    n = record.itemsize // _CELL

    @compiled(inline=True)
    def read(fleet: Any) -> Any:
        return fleet.memory[:n].view(record)[0]

    return read


def params_record(record: np.dtype) -> Any:
    """A compiled function of the view that gives a scheduler's parameters, then its weights, as this record."""
    n = record.itemsize // _CELL

    @compiled(inline=True)
    def read(view: Any) -> Any:
        return view.mem.params[:n].view(record)[0]

    return read
