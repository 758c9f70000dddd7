"""Requests that were read one by one, put in order of arrival, with sessions numbered and shared prefixes found."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from llmsched_env.simulator.request_table import RequestTable
from llmsched_env.workloads.prefixes import PrefixTree


class Call(NamedTuple):
    """One request.

    Attributes:
        arrival: seconds.
        prompt_tokens: tokens.
        output_tokens: tokens.
        session: name of its session, None for none.
        client: name of its client, None if all are of one.
        blocks: ids of the blocks of its prompt.
        scope: within what the ids mean something.
        hit_tokens: leading tokens known to be those of the session's call before; where there are no ids.
        caller: name of the session that set this one to work and waits for it, None for none.
        wait: seconds from the end of the session's call before, None where only arrivals tell.
        served: seconds it took, 0 where that is not known.
    """

    arrival: float
    prompt_tokens: int
    output_tokens: int
    session: Hashable = None
    client: Hashable = None
    blocks: Sequence[int] = ()
    scope: Hashable = None
    hit_tokens: int = 0
    caller: Hashable = None
    wait: float | None = None
    served: float = 0.0


def table_of(calls: Sequence[Call], block_tokens: int = 1) -> RequestTable:
    """The calls in order of arrival; ties keep the order given."""
    return table_in_order(sorted(calls, key=lambda call: call.arrival), block_tokens)


def table_in_order(ordered: Sequence[Call], block_tokens: int = 1) -> RequestTable:
    """The calls, given in order of arrival."""
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
    columns = {
        "arrival": np.array([call.arrival for call in ordered], float),
        "prompt_tokens": np.array([call.prompt_tokens for call in ordered], np.int64),
        "output_tokens": np.array([call.output_tokens for call in ordered], np.int64),
        "session": np.array([sessions.get(call.session, -1) for call in ordered], np.int64),
        "client": np.array([clients[call.client] for call in ordered], np.int64),
        "parent": parent,
        "shared_tokens": shared,
    }
    return RequestTable.from_columns(**columns)
