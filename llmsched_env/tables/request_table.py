"""Requests as plain columns, and the one place where they are validated."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from llmsched_env.machine.config import EngineConfig
from llmsched_env.slo import SLO


class ColumnError(ValueError):
    """A bad value in a column of requests; readers of files turn `index` into a line number."""

    def __init__(self, column: str, index: int | None, problem: str) -> None:
        super().__init__(f"{column}{'' if index is None else f'[{index}]'} {problem}")
        self.column, self.index, self.problem = column, index, problem


class ColumnSpec(NamedTuple):
    """Values that a column may hold: `low <= value <= high`, and NaN if the default is NaN."""

    dtype: type
    low: float
    high: float
    default: float
    allowed: str

    def bad(self, values: np.ndarray) -> np.ndarray:
        """bool[n]: which of the numbers are not allowed in the column."""
        bad = ~((values >= self.low) & (values <= self.high))
        if math.isnan(self.default):
            bad &= ~np.isnan(values)
        elif self.dtype is np.int64 and values.dtype.kind == "f":
            bad |= values != np.floor(values)
        return bad


_INT64 = np.iinfo(np.int64)
_LARGEST = float(np.finfo(np.float64).max)
_POSITIVE = math.ulp(0.0)  # the smallest float above zero
# Tokens are bounded so that sums of query-key pairs stay within int64; clients and classes, because they index arrays.
_TOKENS = ColumnSpec(np.int64, 1, 10**9, 1, "an integer >= 1 and <= 1e9 (tokens)")
_INDEX = ColumnSpec(np.int64, 0, 10**6, 0, "an integer >= 0 and <= 1e6")
_TARGET = ColumnSpec(np.float64, _POSITIVE, math.inf, math.inf, "a number > 0 (s; inf: none)")

COLUMNS: dict[str, ColumnSpec] = {
    "arrival": ColumnSpec(np.float64, 0.0, _LARGEST, 0.0, "a finite number >= 0 (s)"),
    "prompt_tokens": _TOKENS,
    "output_tokens": _TOKENS,
    "predicted_output": ColumnSpec(
        np.float64, _POSITIVE, _LARGEST, math.nan, "a finite number > 0 (tokens; nan: none)"
    ),
    "client": _INDEX,
    "klass": _INDEX,
    "priority": ColumnSpec(np.int64, _INT64.min, _INT64.max, 0, "an integer"),
    "session": ColumnSpec(np.int64, -1, _INT64.max, -1, "an integer >= -1 (-1: none)"),
    "parent": ColumnSpec(np.int64, -1, _INT64.max, -1, "the number of an earlier request, or -1 (none)"),
    "shared_tokens": ColumnSpec(np.int64, 0, 10**9, 0, "an integer >= 0 and <= 1e9 (tokens)"),
    "ttft_slo": _TARGET,
    "tpot_slo": _TARGET,
    "timeout": _TARGET._replace(allowed="a number > 0 (s; inf: its client waits for ever)"),
}


@dataclass(frozen=True, slots=True, eq=False)
class RequestTable:
    """Requests in order of arrival: read-only arrays of length n, one entry per request.

    Attributes:
        arrival: f8[n], seconds, sorted, >= 0.
        prompt_tokens: i8[n] >= 1.
        output_tokens: i8[n] >= 1, the true lengths.
        predicted_output: f8[n] tokens, nan if there is no prediction.
        client: i8[n] >= 0, the client that sent the request.
        klass: i8[n] >= 0, its class.
        priority: i8[n].
        session: i8[n], -1 for none.
        parent: i8[n], index of the earlier request whose tokens this one's prompt begins with; -1 for none.
        shared_tokens: i8[n], number of leading tokens that the prompt shares with the parent's prompt and output.
        ttft_slo: f8[n] seconds, inf for no target.
        tpot_slo: f8[n] seconds, inf for no target.
        timeout: f8[n] seconds after arrival at which the client gives up, inf for never.
        horizon: seconds at which arrivals end, None if unknown.

    Raises:
        ColumnError: (a ValueError) a column has the wrong shape or length, or holds a value that is not allowed.
    """

    arrival: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    predicted_output: np.ndarray
    client: np.ndarray
    klass: np.ndarray
    priority: np.ndarray
    session: np.ndarray
    parent: np.ndarray
    shared_tokens: np.ndarray
    ttft_slo: np.ndarray
    tpot_slo: np.ndarray
    timeout: np.ndarray
    horizon: float | None = None

    @classmethod
    def from_columns(
        cls,
        arrival: ArrayLike,
        prompt_tokens: ArrayLike,
        output_tokens: ArrayLike,
        *,
        horizon: float | None = None,
        **optional: ArrayLike | None,
    ) -> Self:
        """Build a table; optional columns that are absent or None take their default."""
        size = np.shape(arrival)
        given = {name: values for name, values in optional.items() if values is not None}
        defaults = {name: constant(size, column.default, column.dtype) for name, column in COLUMNS.items()}
        required = {"arrival": arrival, "prompt_tokens": prompt_tokens, "output_tokens": output_tokens}
        columns: dict[str, Any] = {**defaults, **required, **given}
        return cls(**columns, horizon=horizon)

    def __post_init__(self) -> None:
        for name in COLUMNS:
            object.__setattr__(self, name, _checked(name, getattr(self, name)))
        for name in COLUMNS:
            if len(getattr(self, name)) != len(self):
                problem = f"must have one value per arrival, that is {len(self)}, got {len(getattr(self, name))}"
                raise ColumnError(name, None, problem)
        backwards = np.flatnonzero(self.arrival[1:] < self.arrival[:-1])
        if backwards.size:
            i = int(backwards[0]) + 1
            problem = f"must be >= the arrival before it ({self.arrival[i - 1]} s), got {self.arrival[i]}"
            raise ColumnError("arrival", i, problem)
        self._check_parents()

    def _check_parents(self) -> None:
        if _one(self.parent) == [-1] and _one(self.shared_tokens) == [0]:
            return
        late = np.flatnonzero(self.parent >= np.arange(len(self)))
        if late.size:
            i = int(late[0])
            raise ColumnError("parent", i, f"must be the number of a request before {i}, or -1, got {self.parent[i]}")
        last = np.where(self.parent < 0, 0, self.prompt_tokens[self.parent] + self.output_tokens[self.parent])
        most = np.minimum(last, self.prompt_tokens)
        over = np.flatnonzero(self.shared_tokens > most)
        if over.size:
            i = int(over[0])
            problem = (
                f"must be <= {most[i]}, the tokens of its own prompt and of its parent, got {self.shared_tokens[i]}"
            )
            raise ColumnError("shared_tokens", i, problem)

    def __len__(self) -> int:
        return len(self.arrival)

    def stretched(self, factor: float) -> RequestTable:
        """Return the same requests with all times multiplied by `factor`."""
        horizon = None if self.horizon is None else self.horizon * factor
        return self._replaced(self.arrival * factor, slice(None), horizon)

    def window(self, begin: float, end: float, horizon: float) -> RequestTable:
        """Return the requests with begin <= arrival < end (seconds); times count from `begin`, and `horizon` is set."""
        first, last = np.searchsorted(self.arrival, [begin, end], side="left")
        return self._replaced(self.arrival[first:last] - begin, slice(first, last), horizon)

    def rows(self, first: int, last: int) -> RequestTable:
        """Return requests first, ..., last - 1 at unchanged times."""
        return self._replaced(self.arrival[first:last], slice(first, last), None)

    def repeated(self, n: int) -> RequestTable:
        """Return the first n requests, over and over, all at time 0; prompts share tokens within a round only.

        Raises:
            ValueError: the table is empty.
        """
        if not len(self):
            raise ValueError("requests in a closed loop must be at least one, got none")
        again, place = np.divmod(np.arange(n), len(self))
        columns = {name: getattr(self, name)[place] for name in COLUMNS}
        columns["parent"] = np.where(columns["parent"] < 0, -1, columns["parent"] + again * len(self))
        return RequestTable(**{**columns, "arrival": np.zeros(n)})

    def at(self, arrival: np.ndarray) -> RequestTable:
        """Return the same requests at other times, f8[n] seconds."""
        return replace(self, arrival=arrival)

    def with_slo(self, slo: SLO) -> RequestTable:
        """Return the same requests, all with these targets."""
        return replace(self, ttft_slo=constant(len(self), slo.ttft), tpot_slo=constant(len(self), slo.tpot))

    def _replaced(self, arrival: np.ndarray, rows: slice, horizon: float | None) -> RequestTable:
        columns = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name in COLUMNS}
        first = rows.start or 0
        if first and _one(self.parent) != [-1]:
            columns["parent"] = np.where(columns["parent"] < first, -1, columns["parent"] - first)
            columns["shared_tokens"] = np.where(columns["parent"] < 0, 0, columns["shared_tokens"])
        return RequestTable(**{**columns, "arrival": arrival}, horizon=horizon)


@runtime_checkable
class RequestSampler(Protocol):
    """What `simulate` needs of a workload: its requests as a function of a seed."""

    @property
    def name(self) -> str:
        """Its name in reports."""

    @property
    def rate(self) -> float:
        """Requests per second, nan if unknown."""

    def sample(self, seed: int) -> RequestTable:
        """The requests of a seed."""

    def reference_capacity(self, engine: EngineConfig) -> float:
        """Requests/s that the engine sustains on this mix of lengths; the rate over it is the load."""


def constant(size: int | tuple[int, ...], value: float, dtype: type = np.float64) -> np.ndarray:
    """Return a read-only array filled with `value` that takes the memory of one element."""
    one: np.ndarray = np.array(value, dtype)
    one.flags.writeable = False
    return np.broadcast_to(one, size)


def _one(values: np.ndarray) -> list[float]:
    """The value of an array made by `constant`, as a list; an empty list for any other array."""
    return values[:1].tolist() if values.strides == (0,) else []


def _is_frozen(values: np.ndarray) -> bool:
    """Whether the array cannot be written to, directly or through the arrays that it is a view of."""
    while isinstance(values, np.ndarray):
        if values.flags.writeable:
            return False
        if values.base is None:
            return True
        values = values.base
    return isinstance(values, bytes)


def _checked(name: str, values: ArrayLike) -> np.ndarray:
    """Return `values` read-only in the column's type, as a copy unless they already are."""
    column = COLUMNS[name]
    raw = np.asarray(values)
    if raw.ndim != 1:
        raise ColumnError(name, None, f"must be a one-dimensional array, got shape {raw.shape}")
    if raw.dtype.kind not in "iuf":
        raise ColumnError(name, None, f"must hold numbers, each {column.allowed}, got an array of {raw.dtype}")
    bad = column.bad(raw[:1] if raw.strides == (0,) else raw)
    if bad.any():
        i = int(np.argmax(bad))
        raise ColumnError(name, i, f"must be {column.allowed}, got {raw[i]}")
    if raw.dtype == column.dtype and _is_frozen(raw):
        return raw
    checked: np.ndarray = raw.astype(column.dtype)
    checked.flags.writeable = False
    return checked
