"""Turns calls that were read one by one from a trace into a table of requests, or into tasks by session."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from llmsched_env.tables.request_table import RequestTable
from llmsched_env.tables.task_table import TaskTable


class TraceCall(NamedTuple):
    """One request of a trace.

    Attributes:
        arrival: seconds.
        prompt_tokens: tokens.
        output_tokens: tokens.
        session: key of its session, None for none.
        client: key of its client, None if there is only one.
        blocks: ids of the blocks of its prompt.
        scope: block ids are compared within one scope only.
        hit_tokens: leading tokens shared with the session's previous call; used if there are no block ids.
        caller: key of the session that started this session and waits for it, None for none.
        wait: seconds from the end of the session's previous call; None if only the arrivals are known.
        served: seconds it took, 0 if unknown.
    """

    arrival: float
    prompt_tokens: int
    output_tokens: int
    session: Hashable = None
    client: Hashable = None
    blocks: Sequence[Hashable] = ()
    scope: Hashable = None
    hit_tokens: int = 0
    caller: Hashable = None
    wait: float | None = None
    served: float = 0.0


def table_of(calls: Sequence[TraceCall], block_tokens: int = 1) -> RequestTable:
    """The table of calls, sorted by arrival; ties keep the given order."""
    return table_in_order(sorted(calls, key=lambda call: call.arrival), block_tokens)


def table_in_order(ordered: Sequence[TraceCall], block_tokens: int = 1) -> RequestTable:
    """The table of calls that are already in order of arrival."""
    n = len(ordered)
    parent, shared = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    trees: dict[Hashable, PrefixTree] = {}
    previous: dict[Hashable, int] = {}
    sessions: dict[Hashable, int] = {}
    clients: dict[Hashable, int] = {}
    for i, call in enumerate(ordered):
        if call.blocks:
            tree = trees.setdefault(call.scope, PrefixTree(block_tokens))
            parent[i], shared[i] = tree.add(i, call.prompt_tokens, call.blocks)
        elif call.hit_tokens and call.session in previous:
            before = previous[call.session]
            parent[i] = before
            kept = ordered[before].prompt_tokens + ordered[before].output_tokens
            shared[i] = min(call.hit_tokens, call.prompt_tokens, kept)
        if call.session is not None:
            previous[call.session] = i
            sessions.setdefault(call.session, len(sessions))
        clients.setdefault(call.client, len(clients))
    return RequestTable.from_columns(
        np.array([call.arrival for call in ordered], float),
        np.array([call.prompt_tokens for call in ordered], np.int64),
        np.array([call.output_tokens for call in ordered], np.int64),
        session=np.array([sessions.get(call.session, -1) for call in ordered], np.int64),
        client=np.array([clients[call.client] for call in ordered], np.int64),
        parent=parent,
        shared_tokens=shared,
    )


def tasks_of(calls: Sequence[TraceCall], block_tokens: int = 1) -> TaskTable:
    """One task for every session without a caller, together with all sessions that it started.

    The calls of a session follow one another. Sub-sessions start in parallel after the caller's last call before them,
    and the caller's next call waits for the ends of all of them.

    The delay of a call is its recorded wait. Without one, it is the time from the recorded end of the session's
    previous call (its arrival if the end is unknown) to the call's arrival. If the call waited for sub-sessions, the
    duration of the longest is subtracted, because the simulation determines it.

    Args:
        calls: calls of each task in the order in which they were made; arrivals may be relative to the start of their
            session.
        block_tokens: tokens per block.
    """
    root = _roots(calls)
    order = sorted(range(len(calls)), key=lambda i: (calls[root[i]].arrival, root[i]))
    first = np.array([root[i] for i in order])
    task = np.cumsum(np.append(0, first[1:] != first[:-1]))[: len(order)]
    ordered = [calls[i] for i in order]
    table = table_in_order([calls[i]._replace(arrival=calls[root[i]].arrival) for i in order], block_tokens)
    graph = _Graph(ordered)
    for begin, end in _parts(task):
        graph.add_task(begin, end)
    return TaskTable.from_columns(table, task, graph.edges, graph.delay)


def tasks_by_arrival(calls: Sequence[TraceCall], block_tokens: int = 1) -> TaskTable:
    """`tasks_of` calls whose arrivals say in which order they were made; ties keep the given order."""
    return tasks_of(sorted(calls, key=lambda call: call.arrival), block_tokens)


def _roots(calls: Sequence[TraceCall]) -> list[int]:
    """Index of the first call of the task of each call."""
    callers = {call.session: call.caller for call in calls}
    first: dict[Hashable, int] = {}
    roots = []
    for i, call in enumerate(calls):
        top, seen = call.session, set()
        while callers.get(top) is not None and top not in seen:
            seen.add(top)
            top = callers[top]
        roots.append(i if top is None else first.setdefault(top, i))
    return roots


def _parts(task: np.ndarray) -> Iterator[tuple[int, int]]:
    cuts = [0, *(np.flatnonzero(np.diff(task)) + 1).tolist(), len(task)]
    return zip(cuts[:-1], cuts[1:], strict=True)


class _Graph:
    """Edges and delays of calls, built task by task."""

    def __init__(self, calls: Sequence[TraceCall]) -> None:
        self.calls = calls
        self.edges: list[tuple[int, int]] = []
        self.delay = [0.0] * len(calls)

    def add_task(self, begin: int, end: int) -> None:
        """Link the calls `begin`, ..., `end` - 1, which form one task."""
        self._first: dict[Hashable, int] = {}
        self._last: dict[Hashable, int] = {}
        self._helpers: dict[Hashable, list[Hashable]] = defaultdict(list)  # sub-sessions by the session that waits
        for i in range(begin, end):
            session, caller = self.calls[i].session, self.calls[i].caller
            before, helpers = self._last.get(session), self._helpers.pop(session, [])
            if before is not None:
                self.edges.append((before, i))
                self.delay[i] = self._wait(before, i) - max(map(self._duration, helpers), default=0.0)
                self.delay[i] = max(0.0, self.delay[i])
            else:
                self._first[session] = i
                if caller in self._last and caller != session:
                    self.edges.append((self._last[caller], i))
                    self._helpers[caller].append(session)
            self.edges += [(last, i) for helper in helpers for last in self._ends(helper)]
            self._last[session] = i

    def _wait(self, before: int, i: int) -> float:
        former, call = self.calls[before], self.calls[i]
        return call.arrival - former.arrival - former.served if call.wait is None else call.wait

    def _duration(self, session: Hashable) -> float:
        first, last = self.calls[self._first[session]], self.calls[self._last[session]]
        return last.arrival + last.served - first.arrival

    def _ends(self, session: Hashable) -> list[int]:
        """The last call of a session, and those of the sub-sessions that it started after that call."""
        return [self._last[session], *(end for own in self._helpers[session] for end in self._ends(own))]


class PrefixTree:
    """A trie of the leading block ids seen so far; each node stores the request that introduced it.

    Args:
        block_tokens: tokens per full block; the last block of a prompt may be shorter.
    """

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self._children: dict[tuple[int, Hashable], int] = {}
        self._creator = [-1]
        self._prompt: dict[int, int] = {}

    def add(self, request: int, prompt_tokens: int, ids: Iterable[Hashable]) -> tuple[int, int]:
        """Add the blocks of a request.

        Returns:
            (parent, shared tokens): the first request with the longest run of leading ids that this one shares with an
            earlier one, and the length of the run, at most that of both prompts; (-1, 0) if there is none.
        """
        node, depth, shared = 0, 0, True
        parent, children, creator = -1, self._children, self._creator
        for block in ids:
            key = (node, block)
            if shared and key in children:
                node = children[key]
                parent, depth = creator[node], depth + 1
                continue
            shared = False
            children[key] = node = len(creator)
            creator.append(request)
        self._prompt[request] = prompt_tokens
        if parent < 0:
            return -1, 0
        return parent, min(depth * self.block_tokens, prompt_tokens, self._prompt[parent])
