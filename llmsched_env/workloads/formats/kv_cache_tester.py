"""Coding-agent sessions of kv-cache-tester (https://github.com/callanjfox/kv-cache-tester): a JSON file, or a folder.

Times `t` count from the start of the session, so the sessions of a folder all begin at 0; a sub-agent's count from its
own start, and it is a session of its own. `hash_ids` mean something within one file only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llmsched_env.json_files import read_object
from llmsched_env.workloads.formats.calls import Call, table_of
from llmsched_env.workloads.formats.format import TraceFormat
from llmsched_env.workloads.formats.head import Head
from llmsched_env.workloads.formats.json_rows import Row, block_ids, nested, seconds, tokens
from llmsched_env.workloads.formats.rows import CellError, RowLog
from llmsched_env.workloads.sources import FixedRequests

_PATTERN = "*.json"


def _read(head: Head, log: RowLog) -> FixedRequests:
    files = sorted(head.path.glob(_PATTERN)) if head.path.is_dir() else [head.path]
    calls: list[Call] = []
    block_tokens = set()
    for path in files:
        session = read_object(path) if head.document is None else head.document
        try:
            block_tokens.add(tokens(session, "block_size"))
            nested(session, "requests", list)
        except CellError as error:
            raise ValueError(f"{path}, {error.column} {error.problem}") from None
        scope = path.name if session.get("hash_id_scope", "local") == "local" else None
        calls.extend(_calls(session, path, log, scope, name=path.name, begin=0.0, where="requests"))
    if len(block_tokens) > 1:
        raise ValueError(f"{head.path}: block_size must be the same in all files, got {sorted(block_tokens)}")
    if not calls:
        raise ValueError(f"{head.path} must hold at least one request, got none")
    return FixedRequests(table_of(calls, *block_tokens))


def _calls(
    session: Row, path: Path, log: RowLog, scope: str | None, name: str, begin: float, where: str
) -> Iterator[Call]:
    """The calls of a session and of its sub-agents; a bad one is reported by its place in the file's lists."""
    for i, row in enumerate(session["requests"]):
        place = f"{where}[{i}]"
        try:
            if not isinstance(row, dict):
                raise CellError("", f"must be a JSON object, got {repr(row)[:80]}")
            start = begin + seconds(row, "t")
            if row.get("type") == "subagent":
                nested(row, "requests", list)
                inner = f"{name}/{row.get('agent_id', i)}"
                yield from _calls(row, path, log, scope, inner, start, f"{place}.requests")
                continue
            lengths = tokens(row, "in"), tokens(row, "out", low=0)
            blocks = block_ids(row, "hash_ids")
        except CellError as error:
            log.bad(path, None, f"{place}.{error.column}".rstrip("."), error.problem)
            continue
        if lengths[1]:
            yield Call(start, *lengths, name, blocks=blocks, scope=scope)
        else:
            log.failed()


def _matches(head: Head) -> bool:
    if head.path.is_dir():
        return next(head.path.glob(_PATTERN), None) is not None
    return head.document is not None and "requests" in head.document and "block_size" in head.document


KV_CACHE_TESTER = TraceFormat(
    "kv-cache-tester",
    f"a JSON object with requests and block_size, or a folder of {_PATTERN}",
    _read,
    _matches,
)
