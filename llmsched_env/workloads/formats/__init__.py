"""Trace formats: one module each, found by listing this package.

A format is a module with a constant of type `TraceFormat`; defining it is all that `load_trace` needs. The other
modules are what formats share: `trace_format` (what a format is), `csv_reader` and its compiled `csv_parser`,
`json_reader`, `clock` (units and Unix times), `hash_blocks` (block sizes), `trace_calls` (calls of sessions to tables),
`measured` (requests of benchmarks) and `row_log` (bad rows, failed requests, what was recognised).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from llmsched_env.validation import shown
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat

__all__ = ["FORMATS", "recognised"]


def _found() -> Iterator[TraceFormat]:
    for info in iter_modules(__path__):
        module = import_module(f"{__name__}.{info.name}")
        yield from (value for value in vars(module).values() if isinstance(value, TraceFormat))


FORMATS = tuple(sorted(_found(), key=lambda trace_format: trace_format.last_resort))
"""All formats that `load_trace` reads, in the order in which they are tried."""


def recognised(head: Head) -> TraceFormat:
    """Return the format of a file or folder by how it begins.

    Raises:
        ValueError: no format matches; the message lists all that would.
    """
    for trace_format in FORMATS:
        if trace_format.matches is not None and trace_format.matches(head):
            return trace_format
    if head.path.is_dir() or head.row is not None or head.document is not None or head.items is not None:
        others = [trace_format for trace_format in FORMATS if trace_format.header is None]
        keys = ", ".join(shown(key).strip("'") for key in list(head.first)[:8])
        got = "a folder without them" if head.path.is_dir() else f"JSON with {keys or 'nothing'}"
        raise ValueError(f"{head.path} must be one of: {_listed(others)}; got {got}")
    tables = [(trace_format, header) for trace_format in FORMATS if (header := trace_format.header) is not None]
    best, header = max(tables, key=lambda table: table[1].share(head.titles))
    if not header.share(head.titles):
        got = ",".join(head.titles) or "nothing"
        expected = _listed([trace_format for trace_format, _ in tables])
        raise ValueError(f"{head.path}, line 1 must be a header with columns {expected}, got {got}")
    header.check(head.path, head.titles)
    return best


def _listed(formats: list[TraceFormat]) -> str:
    return " or ".join(f"{trace_format.looks} ({trace_format.name})" for trace_format in formats)
