"""Classes of requests that each begin with a prompt of their own, told by the length of the whole prompt."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class SystemPrompt(NamedTuple):
    """Requests of one class.

    Attributes:
        low: fewest tokens of their prompts.
        high: most tokens of their prompts.
        tokens: leading tokens that all of them have in common.
    """

    low: int
    high: int
    tokens: int


def assign(prompt_tokens: np.ndarray, classes: tuple[SystemPrompt, ...]) -> dict[str, np.ndarray]:
    """Columns klass, parent and shared_tokens, i8[n] each, of requests with these prompts.

    A request is of the class with the narrowest range around its prompt, or of the widest if there is none; it shares
    the class's leading tokens with the first request of its class.
    """
    n = len(prompt_tokens)
    by_width = sorted(range(len(classes)), key=lambda k: classes[k].low - classes[k].high)  # widest first
    klass = np.full(n, by_width[0], np.int64)
    for k in by_width:
        klass[(classes[k].low <= prompt_tokens) & (prompt_tokens <= classes[k].high)] = k
    parent, shared = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    for k, own in enumerate(classes):
        members = np.flatnonzero(klass == k)
        if len(members):
            first, others = members[0], members[1:]
            parent[others] = first
            shared[others] = np.minimum(own.tokens, np.minimum(prompt_tokens[others], prompt_tokens[first]))
    return {"klass": klass, "parent": parent, "shared_tokens": shared}
