"""A batch-time law of two tables over tokens, for machines whose times no straight line describes.

A mixture-of-experts model reads more experts the more tokens a batch holds, until it reads them all: its decode time is
a concave function of the tokens, and the linear law of `machine.batch_time` can only be convex in them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from llmsched_env.machine.batch_time import MOST_KNOTS, BatchTime, Coefficients, without_empty
from llmsched_env.validation import check_number

Table = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class TabulatedLaw(BatchTime):
    """Seconds of batches that only decode, and of batches that hold prefill, each by a table over tokens.

        decodes alone:   t = decode(b) + a_kv_decode*S
        with prefill:    t = mixed(b) + a_seq*n + a_kv*S + a_attn*Q + a_ctx*C

    with b tokens in the batch, n requests, and S, Q and C as in `machine.batch_time`. The tables are linear between
    their knots, flat below the first, and go on with their last slope beyond the last.

    Args:
        decode: (tokens, s) of each knot, by tokens; times must not fall. 2 to 24 knots.
        mixed: the same of batches that hold prefill.
        a_seq: s a request in a batch that holds prefill.
        a_kv_decode: s a context token of decodes in a batch that only decodes.
        a_kv: s a context token of decodes in a batch that holds prefill.
        a_attn: s a query-key pair of prefill.
        a_ctx: s a context token before prefill chunks.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    decode: Table
    mixed: Table
    a_seq: float
    a_kv_decode: float
    a_kv: float
    a_attn: float
    a_ctx: float

    def __post_init__(self) -> None:
        for name in ("decode", "mixed"):
            object.__setattr__(self, name, _checked_table(f"TabulatedLaw.{name}", getattr(self, name)))
        for name in ("a_seq", "a_kv_decode", "a_kv", "a_attn", "a_ctx"):
            check_number(f"TabulatedLaw.{name}", getattr(self, name), at_least=0, unit="s")

    @property
    def range(self) -> tuple[int, int]:
        """Most tokens of a batch that only decodes, and of one that holds prefill, that the tables reach to."""
        return self.decode[-1][0], self.mixed[-1][0]

    def coefficients(self) -> Coefficients:
        """Slopes that stand for the tables in rules of thumb.

        They are those of the whole decode table, and of the mixed one where it ends.
        """
        (first, low), (last, high) = self.decode[0], self.decode[-1]
        a_tok = (high - low) / (last - first)
        a_prefill = _slopes(self.mixed)[-1]
        return Coefficients(
            c=low,
            a_tok=a_tok,
            a_tok_over=max(0.0, a_prefill - a_tok),
            b0=float(self.mixed[-2][0]),
            a_kv=self.a_kv_decode,
            a_attn=self.a_attn,
            a_ctx=self.a_ctx,
        )

    def least(self) -> Coefficients:
        """See `BatchTime.least`; tokens cost nothing in it, since tables may be flat."""
        c = float(min(self.token_seconds(1, True), self.token_seconds(1, False)))
        return Coefficients(c=c, a_kv=min(self.a_kv_decode, self.a_kv), a_attn=self.a_attn, a_ctx=self.a_ctx)

    def token_seconds(self, tokens: Any, holds_prefill: bool) -> Any:
        """See `BatchTime.token_seconds`: one of the tables."""
        tokens = np.asarray(tokens, dtype=np.float64)
        return without_empty(tokens, _interpolated(self.mixed if holds_prefill else self.decode, tokens))

    def context_and_request(self, holds_prefill: bool) -> tuple[float, float]:
        """See `BatchTime.context_and_request`."""
        return (self.a_kv, self.a_seq) if holds_prefill else (self.a_kv_decode, 0.0)

    def _seconds(self, tokens: Any, context: Any, pairs: Any, before: Any, requests: Any) -> Any:
        decodes = _interpolated(self.decode, tokens) + self.a_kv_decode * context
        mixed = _interpolated(self.mixed, tokens) + self.a_seq * requests + self.a_kv * context
        return np.where(pairs > 0, mixed + self.a_attn * pairs + self.a_ctx * before, decodes)

    def record(self) -> Any:
        """See `BatchTime.record`."""
        law = super(TabulatedLaw, self).record()
        law[0].a_seq, law[0].a_kv_mixed = self.a_seq, self.a_kv
        for name in ("decode", "mixed"):
            table = getattr(self, name)
            law[0][f"{name}_knots"] = len(table)
            law[0][f"{name}_tokens"][: len(table)], law[0][f"{name}_seconds"][: len(table)] = zip(*table, strict=True)
            law[0][f"{name}_slope"][: len(table)] = _slopes(table)
        return law

    def scaled(self, factor: float) -> Self:
        """See `BatchTime.scaled`."""
        check_number("factor", factor, above=0)
        decode, mixed = (tuple((b, factor * t) for b, t in table) for table in (self.decode, self.mixed))
        slopes = (self.a_seq, self.a_kv_decode, self.a_kv, self.a_attn, self.a_ctx)
        return type(self)(decode, mixed, *(factor * slope for slope in slopes))


def _checked_table(name: str, table: Any) -> Table:
    if not isinstance(table, Iterable) or isinstance(table, str | bytes):
        raise ValueError(f"{name} must be a list of (tokens, s), got {repr(table)[:80]}")
    rows = list(table)
    if not 2 <= len(rows) <= MOST_KNOTS:
        raise ValueError(f"{name} must have 2 to {MOST_KNOTS} knots, got {len(rows)}")
    if any(not isinstance(row, list | tuple | np.ndarray) or len(row) != 2 for row in rows):
        raise ValueError(f"{name} must be a list of (tokens, s), got {repr(rows)[:80]}")
    knots = [
        (_whole(f"{name}[{k}] tokens", row[0]), check_number(f"{name}[{k}]", row[1], above=0, unit="s"))
        for k, row in enumerate(rows)
    ]
    for k, (before, after) in enumerate(zip(knots[:-1], knots[1:], strict=True), 1):
        if after[0] <= before[0]:
            raise ValueError(f"{name} must be in order of tokens, got {before[0]} and then {after[0]} at knot {k}")
        if after[1] < before[1]:
            raise ValueError(f"{name} must not fall with tokens, got {before[1]:g} and then {after[1]:g} s at knot {k}")
    return tuple(knots)


def _whole(name: str, tokens: Any) -> int:
    number = check_number(name, tokens, at_least=1, unit="tokens")
    if not number.is_integer():
        raise ValueError(f"{name} must be a whole number of tokens, got {number:g}")
    return int(number)


def _slopes(table: Table) -> np.ndarray:
    """Seconds a token from each knot to the next; the last one again at the end, where the table goes on."""
    tokens, seconds = np.array(table).T
    slopes = np.diff(seconds) / np.diff(tokens)
    return np.append(slopes, slopes[-1])


def _interpolated(table: Table, tokens: Any) -> Any:
    """The table at `tokens`, as compiled code has it."""
    knots, seconds = np.array(table).T
    k = np.clip(np.searchsorted(knots, tokens, side="right") - 1, 0, len(knots) - 2)
    return seconds[k] + _slopes(table)[k] * np.maximum(0.0, tokens - knots[k])
