"""What schedulers and routers are set to, and keep from batch to batch, read by name in compiled code.

    PARAMS = {"token_budget": Param(512, 1, 16384), "quantum": Param(0.1, 0, 10)}
    params, memory, own = params_of(PARAMS), engine_memory(("since",)), request_memory(("urgency",))

In `compose`, `params(view).quantum` is a number, `memory(view).since = view.clock` writes one, and
`own(view).urgency[i]` is that of request i.
"""

from collections import namedtuple
from collections.abc import Iterable
from typing import Any

import numba
import numpy as np

from llmsched_env.compiled import compiled
from llmsched_env.fields import field_names, record_dtype

_NUMBER = np.dtype(np.float64).itemsize
Names = Iterable[str] | np.dtype
"""Names of numbers, or a `number_record` of them."""


def params_of(names: Names, arrays: tuple[str, ...] = ()) -> Any:
    """A compiled function of the view that gives the scheduler's parameters, and then its weights.

    Args:
        names: in the order of their declaration.
        arrays: stems of numbered names that are read as one array: with `arrays=("limit",)` the parameters `limit_0`,
            `limit_1`, ... are `params(view).limit[k]`.
    """
    dtype = _record(names, arrays)
    n, missing = dtype.itemsize // _NUMBER, _undeclared("parameters", dtype)

    @compiled(inline=True)
    def read(view: Any) -> Any:
        if len(view.mem.params) < n:
            raise ValueError(missing)
        return view.mem.params[:n].view(dtype)[0]

    return read


def engine_memory(names: Names, arrays: tuple[str, ...] = ()) -> Any:
    """A compiled function of the view that gives the scheduler's engine memory; arguments as of `params_of`."""
    dtype = _record(names, arrays)
    n, missing = dtype.itemsize // _NUMBER, _undeclared('memory "engine"', dtype)

    @compiled(inline=True)
    def read(view: Any) -> Any:
        if len(view.mem.engine) < n:
            raise ValueError(missing)
        return view.mem.engine[:n].view(dtype)[0]

    return read


def router_params(names: Names) -> Any:
    """A compiled function of the fleet that gives the router's parameters, and then its weights."""
    dtype = _record(names)
    n, missing = dtype.itemsize // _NUMBER, _undeclared("parameters", dtype)

    @compiled(inline=True)
    def read(fleet: Any) -> Any:
        if len(fleet.params) < n:
            raise ValueError(missing)
        return fleet.params[:n].view(dtype)[0]

    return read


def router_memory(names: Names) -> Any:
    """A compiled function of the fleet that gives what the router keeps."""
    dtype = _record(names)
    n, missing = dtype.itemsize // _NUMBER, _undeclared("memory", dtype)

    @compiled(inline=True)
    def read(fleet: Any) -> Any:
        if len(fleet.memory) < n:
            raise ValueError(missing)
        return fleet.memory[:n].view(dtype)[0]

    return read


def request_memory(names: tuple[str, ...]) -> Any:
    """A compiled function of the view that gives columns f8[n] by request, as a named tuple."""
    return _columns("request", names)


def client_memory(names: tuple[str, ...]) -> Any:
    """A compiled function of the view that gives columns f8[clients] by client, as a named tuple."""
    return _columns("client", names)


def number_record(*numbers: str, **arrays: int | tuple[int, ...] | np.dtype) -> np.dtype:
    """A record of float64 fields: `numbers`, then `arrays` of a length or shape, or records (a dtype).

    `number_record("clock", patience=9)` has `memory.clock` and `memory.patience[k]`.
    """
    fields: list[Any] = [(name, np.float64) for name in numbers]
    for name, size in arrays.items():
        fields.append((name, size) if isinstance(size, np.dtype) else (name, np.float64, size))
    return record_dtype(*fields)


def number_names(record: np.dtype) -> tuple[str, ...]:
    """A name for each number of a record, as a scheduler or router declares its memory."""
    return tuple(
        name if size == _NUMBER else f"{name}_{k}"
        for name in field_names(record)
        for size in [record[name].itemsize]
        for k in range(size // _NUMBER)
    )


def numbered(stem: str, count: int, first: int = 0) -> tuple[str, ...]:
    """Names that differ in a number: `numbered("limit", 3)` is `("limit_0", "limit_1", "limit_2")`."""
    return tuple(f"{stem}_{k}" for k in range(first, first + count))


def _record(names: Names, arrays: tuple[str, ...] = ()) -> np.dtype:
    """The record of these numbers, where numbered names whose stem is in `arrays` are one array."""
    if isinstance(names, np.dtype):
        return names
    counts: dict[str, int] = {}
    for name in names:
        stem = name.rpartition("_")[0]
        field = stem if stem in arrays else name
        if field in counts and field != next(reversed(counts)):
            raise ValueError(f"{name} must follow the other names of the array {field!r}")
        counts[field] = counts.get(field, 0) + 1
    return record_dtype(*((field, f"({n},)f8" if field in arrays else "f8") for field, n in counts.items()))


def _undeclared(what: str, names: Names) -> str:
    """The message for a rule that reads more than it has declared."""
    wanted = number_names(names) if isinstance(names, np.dtype) else tuple(names)
    shown = ", ".join(wanted[:8]) + (", ..." if len(wanted) > 8 else "")
    return f"{what} must be declared as they are read: {len(wanted)} numbers, {shown}"


def _columns(kind: str, names: tuple[str, ...]) -> Any:
    """A compiled function of the view that gives the first columns of this kind of memory as a named tuple."""
    columns = ", ".join(f"memory[:, {k}]" for k in range(len(names)))
    scope: dict[str, Any] = {
        "Columns": namedtuple("Columns", names),  # noqa: PYI024
        "missing": _undeclared(f'memory "{kind}"', names),
    }
    source = f"""def read(view):
    memory = view.mem.{kind}
    if memory.shape[1] < {len(names)}:
        raise ValueError(missing)
    return Columns({columns})"""
    exec(source, scope)  # numba needs the places as constants
    return numba.njit(nogil=True, _nrt=False, forceinline=True, error_model="numpy")(scope["read"])


def seeded(seed: int | tuple[int, ...]) -> np.ndarray:
    """u8[2]: a state for `uniform`, well mixed so that neighbouring seeds have nothing in common."""
    return np.array([np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] | np.uint64(1), 0], np.uint64)


@compiled
def uniform(view):
    """A random number in [0, 1) from the scheduler's own stream."""
    return draw(view.mem.rng)


@compiled
def draw(rng):
    """A random number in [0, 1) from the stream with state `rng` (Marsaglia's xorshift, 64 bits, shifts 13, 7, 17)."""
    x = rng[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    rng[0] = x
    rng[1] += np.uint64(1)
    return np.float64(x >> np.uint64(11)) * 2.0**-53
