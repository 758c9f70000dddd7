"""A broken rule."""

from __future__ import annotations

from typing import NamedTuple


class Violation(NamedTuple):
    """A rule that a run broke, where and how.

    Attributes:
        rule: short name of the rule, such as "6d" or "work conservation".
        message: the numbers, in words.
        batch: its row number, or None.
        request: its row number, or None.
    """

    rule: str
    message: str
    batch: int | None = None
    request: int | None = None

    def __str__(self) -> str:
        where = [f"{name} {n}" for name, n in (("batch", self.batch), ("request", self.request)) if n is not None]
        return f"[{self.rule}] {', '.join(where)}{': ' if where else ''}{self.message}"
