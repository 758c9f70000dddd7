"""Which earlier request a prompt's beginning comes from, told by the ids of its blocks of tokens."""

from __future__ import annotations

from collections.abc import Hashable, Iterable


class PrefixTree:
    """Runs of leading block ids seen so far, as a trie whose nodes remember the request that introduced them.

    Args:
        block_tokens: tokens of a full block; the last block of a prompt may be shorter.
    """

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self._children: dict[tuple[int, Hashable], int] = {}
        self._creator = [-1]
        self._prompt: dict[int, int] = {}

    def add(self, request: int, prompt_tokens: int, ids: Iterable[Hashable]) -> tuple[int, int]:
        """Enter the blocks of a request.

        Returns:
            (parent, shared tokens): the request that first had the whole run of leading ids that this one has in
            common with the ones before, and its length, at most the prompts of both; (-1, 0) if there is none.
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
