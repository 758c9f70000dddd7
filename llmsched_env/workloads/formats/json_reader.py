"""Reads JSON lines and their values, with errors that name the line and the key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from llmsched_env.files import parse_json
from llmsched_env.tables.request_table import COLUMNS, ColumnSpec
from llmsched_env.validation import shown
from llmsched_env.workloads.formats.row_log import CellError, RowLog

Row = dict[str, Any]
Parsed = TypeVar("Parsed")


def read_lines(path: Path, log: RowLog, parse: Callable[[Row], Parsed | None]) -> list[Parsed]:
    """Return everything that `parsed_lines` yields.

    Raises:
        ValueError: a row is bad and `log` does not skip bad rows, or there is no request.
    """
    parsed = list(parsed_lines(path, log, parse))
    if not parsed:
        raise ValueError(f"{path} must hold at least one request, got none")
    return parsed


def parsed_lines(path: Path, log: RowLog, parse: Callable[[Row], Parsed | None]) -> Iterator[Parsed]:
    """Parse a file of JSON objects, one per line.

    Args:
        path: the file.
        log: receives the rows that are left out.
        parse: function of one object; returns None if it is not a request, raises `CellError` if the row is bad.

    Raises:
        ValueError: a row is bad and `log` does not skip bad rows.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = parse_json(line, "it")
                problem = None if isinstance(row, dict) else "must be a JSON object"
            except ValueError as error:
                problem = f"must be a JSON object ({error})"
            if problem:
                log.bad(path, number, "", f"{problem}, got {line.strip()[:80]!r}")
                continue
            try:
                result = parse(row)
            except CellError as error:
                log.bad(path, number, error.column, error.problem)
                continue
            if result is not None:
                yield result


def parsed_rows(path: Path, rows: list[Row], log: RowLog, parse: Callable[[Row], Parsed | None]) -> list[Parsed]:
    """The same as `read_lines` for a JSON array of objects; bad ones are reported by their index."""
    parsed = []
    for i, row in enumerate(rows):
        try:
            result = parse(row)
        except CellError as error:
            log.bad(path, None, f"[{i}].{error.column}".rstrip("."), error.problem)
            continue
        if result is not None:
            parsed.append(result)
    if not parsed:
        raise ValueError(f"{path} must hold at least one request that succeeded, got none")
    return parsed


def number(row: Row, key: str, column: ColumnSpec) -> float:
    """The number under `key`, within the bounds of `column`.

    Raises:
        CellError: it is missing or not allowed.
    """
    if key not in row:
        raise CellError(key, f"must be {column.allowed}, got nothing")
    value = row[key]
    if type(value) is int or type(value) is float:
        whole = column.dtype is not np.int64 or isinstance(value, int) or value.is_integer()
        if (column.low <= value <= column.high and whole) or (math.isnan(column.default) and value != value):
            return value
    raise CellError(key, f"must be {column.allowed}, got {shown(value)}")


def tokens(row: Row, key: str, low: int = 1) -> int:
    """The token count under `key`."""
    value = row.get(key)
    if type(value) is int and low <= value <= 10**9:  # fast path
        return value
    return int(number(row, key, _tokens_from(low)))


def seconds(row: Row, key: str, per_second: float = 1.0) -> float:
    """The time under `key`, in units of 1/`per_second` seconds."""
    return number(row, key, COLUMNS["arrival"]._replace(allowed="a finite number >= 0 (time)")) / per_second


def stamp(row: Row, key: str) -> float:
    """The ISO 8601 time under `key`, in seconds since 1970; one without an offset is in UTC."""
    try:
        time = datetime.fromisoformat(row[key])
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        raise CellError(key, f"must be an ISO 8601 time, got {shown(row.get(key))}") from None


def moment(row: Row, key: str) -> float:
    """The time under `key`: a number as it is, an ISO 8601 time in seconds since 1970."""
    return stamp(row, key) if isinstance(row.get(key), str) else seconds(row, key)


def block_ids(row: Row, key: str) -> tuple[int | str, ...]:
    """The list of integers or of texts (such as hashes in hexadecimal digits) under `key`; empty if it is missing."""
    ids = row.get(key, ())
    if ids is None:
        return ()
    if not isinstance(ids, list | tuple) or not all(type(one) is int or type(one) is str for one in ids):
        raise CellError(key, f"must be a list of integers or of hashes, got {shown(ids)}")
    return tuple(ids)


def label(row: Row, key: str) -> str | int | None:
    """The name or number under `key`; None if it is missing."""
    value = row.get(key)
    if value is not None and type(value) not in (str, int):
        raise CellError(key, f"must be a name or a number, got {shown(value)}")
    return value


def nested(row: Row, key: str, kind: type) -> Any:
    """The object or list under `key`."""
    value = row.get(key)
    if not isinstance(value, kind):
        what = "a list" if kind is list else "an object"
        raise CellError(key, f"must be {what}, got {shown(value)}")
    return value


def _tokens_from(low: int) -> ColumnSpec:
    return COLUMNS["prompt_tokens"]._replace(low=low, allowed=f"an integer >= {low} and <= 1e9 (tokens)")
