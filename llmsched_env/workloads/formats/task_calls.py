"""Calls that were read one by one, as tasks: the sessions of agents and of those that they set to work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from llmsched_env.simulator.task_table import TaskTable
from llmsched_env.workloads.formats.calls import Call, table_in_order


def tasks_of(calls: Sequence[Call], block_tokens: int = 1) -> TaskTable:
    """A task for every session that no other one waits for, with all that it set to work.

    A session's calls follow one another. Sessions that it sets to work begin after its last call before theirs, all at
    once, and its next call waits for the ends of all of them.

    The delay of a call is its recorded wait; without one, the time from the recorded end of the session's call before
    (from its arrival where the end is not known) to its arrival. Where it waited for other sessions, it is what remains
    after the longest of these: their time comes from the simulation.

    Args:
        calls: those of one task in the order in which they were made; arrivals may count from a start of its own for
            every session.
        block_tokens: tokens of a block.
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


def _roots(calls: Sequence[Call]) -> list[int]:
    """For each call the first one of its task."""
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
    """Edges and delays of calls, found task by task."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        self.edges: list[tuple[int, int]] = []
        self.delay = [0.0] * len(calls)

    def add_task(self, begin: int, end: int) -> None:
        """Link the calls from `begin` up to `end`."""
        self._first: dict[Hashable, int] = {}
        self._last: dict[Hashable, int] = {}
        self._at_work: dict[Hashable, list[Hashable]] = defaultdict(list)  # by the session that waits for them
        for i in range(begin, end):
            session, caller = self.calls[i].session, self.calls[i].caller
            before, helpers = self._last.get(session), self._at_work.pop(session, [])
            if before is not None:
                self.edges.append((before, i))
                self.delay[i] = self._wait(before, i) - max(map(self._duration, helpers), default=0.0)
                self.delay[i] = max(0.0, self.delay[i])
            else:
                self._first[session] = i
                if caller in self._last and caller != session:
                    self.edges.append((self._last[caller], i))
                    self._at_work[caller].append(session)
            self.edges += [(last, i) for helper in helpers for last in self._ends(helper)]
            self._last[session] = i

    def _wait(self, before: int, i: int) -> float:
        former, call = self.calls[before], self.calls[i]
        return call.arrival - former.arrival - former.served if call.wait is None else call.wait

    def _duration(self, session: Hashable) -> float:
        first, last = self.calls[self._first[session]], self.calls[self._last[session]]
        return last.arrival + last.served - first.arrival

    def _ends(self, session: Hashable) -> list[int]:
        """The last call of a session, and those of the sessions that it has set to work since."""
        return [self._last[session], *(end for own in self._at_work[session] for end in self._ends(own))]
