"""How long the GPU takes for one batch: one linear law, and the three models of it that the literature uses.

These models are cases of

    t = c + a_step*ceil(b/b0) + a_tok*b + a_tok_over*max(0, b - b0) + a_kv*S + a_attn*Q + a_ctx*C      [seconds]

with b tokens in the batch; S context tokens read by its decodes; Q query-key pairs of its prefill chunks (a chunk of p
tokens after c earlier ones has p*(c + (p+1)/2)); C context tokens before its prefill chunks.
`machine.tabulated_law` has a law that is none of them.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np

from llmsched_env.fields import record_dtype, records
from llmsched_env.validation import check_integer, check_number


class Coefficients(NamedTuple):
    """The coefficients of the law above."""

    c: float = 0.0  # s a batch
    a_step: float = 0.0  # s for each started group of b0 tokens
    a_tok: float = 0.0  # s a token
    a_tok_over: float = 0.0  # s a token beyond b0
    b0: float = 1.0  # tokens
    a_kv: float = 0.0  # s a context token of decodes
    a_attn: float = 0.0  # s a query-key pair of prefill
    a_ctx: float = 0.0  # s a context token before prefill chunks


MOST_KNOTS = 24

LAW = record_dtype(
    *((name, "f8") for name in Coefficients._fields),
    ("host_batch", "f8"),  # s of the host a batch, the scheduler's decision included
    ("host_request", "f8"),  # s of the host a request in the batch
    ("swap_block", "f8"),  # s a block moved between GPU and host
    ("decide_request", "f8"),  # s of the scheduler's decision a request present
    # Of a `TabulatedLaw`, whose `a_kv` above is that of batches that only decode:
    ("decode_knots", "i8"),  # knots of the table of batches that only decode; 0: the law is linear
    ("mixed_knots", "i8"),  # and of batches that hold prefill
    ("a_kv_mixed", "f8"),  # s a context token of decodes in a batch that holds prefill
    ("a_seq", "f8"),  # s a request in such a batch
    ("decode_tokens", "f8", MOST_KNOTS),
    ("decode_seconds", "f8", MOST_KNOTS),
    ("decode_slope", "f8", MOST_KNOTS),  # s a token from each knot to the next
    ("mixed_tokens", "f8", MOST_KNOTS),
    ("mixed_seconds", "f8", MOST_KNOTS),
    ("mixed_slope", "f8", MOST_KNOTS),
)
"""What the time of a batch follows from: the law, and what host, swapping and decisions add."""


def law_seconds(
    law: Any, tokens: Any, decode_kv_tokens: Any, prefill_attn_pairs: Any, prefill_context_tokens: Any
) -> Any:
    """The linear law, for scalars or arrays; `law` is a record of `LAW`, or `Coefficients`."""
    return (
        law.c
        + law.a_step * np.ceil(tokens / law.b0)
        + law.a_tok * tokens
        + law.a_tok_over * np.maximum(0.0, tokens - law.b0)
        + law.a_kv * decode_kv_tokens
        + law.a_attn * prefill_attn_pairs
        + law.a_ctx * prefill_context_tokens
    )


def without_empty(tokens: np.ndarray, seconds: Any) -> Any:
    """The times, 0 for batches without tokens; a float for a single one."""
    time = np.where(tokens > 0, seconds, 0.0)
    return float(time) if time.ndim == 0 else time


class BatchTime:
    """Base of the batch-time models."""

    def coefficients(self) -> Coefficients:
        """The coefficients of the linear law; of another law, those of a linear one that is like it."""
        raise NotImplementedError

    def least(self) -> Coefficients:
        """Coefficients of a linear law that is nowhere above this one."""
        return self.coefficients()

    def token_seconds(self, tokens: Any, holds_prefill: bool) -> Any:
        """The part of `seconds` that the tokens alone decide; only a `TabulatedLaw` asks whether there is prefill."""
        return self.seconds(tokens)

    def context_and_request(self, holds_prefill: bool) -> tuple[float, float]:
        """Seconds a context token of decodes, and a request, add to batches with prefill, or to those without."""
        return self.coefficients().a_kv, 0.0

    def seconds(
        self,
        tokens: Any,
        decode_kv_tokens: Any = 0,
        prefill_attn_pairs: Any = 0,
        prefill_context_tokens: Any = 0,
        num_seqs: Any = 1,
    ) -> Any:
        """Seconds of a batch of this composition; scalars or arrays. An empty batch takes no time.

        A batch with query-key pairs of prefill holds prefill; one without only decodes. This and `num_seqs`, the
        requests in the batch, matter to a `TabulatedLaw` alone.
        """
        parts = (tokens, decode_kv_tokens, prefill_attn_pairs, prefill_context_tokens, num_seqs)
        b, *rest = (np.asarray(part, dtype=np.float64) for part in parts)
        return without_empty(b, self._seconds(b, *rest))

    def _seconds(self, tokens: Any, context: Any, pairs: Any, before: Any, requests: Any) -> Any:
        """`seconds` of arrays, whatever it may be for empty batches."""
        return law_seconds(self.coefficients(), tokens, context, pairs, before)

    def record(self) -> Any:
        """LAW[1] with this law, and without host time."""
        law = records(LAW)
        for name, value in self.coefficients()._asdict().items():
            law[0][name] = value
        return law

    def scaled(self, factor: float) -> Self:
        """The law whose batches take `factor` times as long."""
        check_number("factor", factor, above=0)
        times = {f.name: getattr(self, f.name) * factor for f in fields(self) if f.name != "b0"}  # type: ignore[arg-type]
        return replace(self, **times)  # type: ignore[type-var]

    def _check(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            name, value = f"{type(self).__name__}.{field.name}", getattr(self, field.name)
            if field.name == "b0":
                check_integer(name, value, at_least=1, at_most=10**9, unit="tokens")
            else:  # fits over many tokens may have a negative intercept
                check_number(name, value, at_least=None if field.name == "c" else 0, unit="s")
        if not float(self.seconds(1)) > 0:
            raise ValueError(f"{type(self).__name__} must give a batch of one token a time above 0 s, got {self!r}")


@dataclass(frozen=True, slots=True)
class Staircase(BatchTime):
    """t = c + a*ceil(b/b0), the law of arXiv 2504.07347 Eq. (4); c and a in seconds, b0 in tokens."""

    c: float
    a: float
    b0: int

    def __post_init__(self) -> None:
        self._check()

    def coefficients(self) -> Coefficients:
        """See `BatchTime.coefficients`."""
        return Coefficients(c=self.c, a_step=self.a, b0=self.b0)


@dataclass(frozen=True, slots=True)
class Hinge(BatchTime):
    """t = c + a*max(0, b - b0), the law of the first version of arXiv 2504.07347; seconds, a in seconds per token."""

    c: float
    a: float
    b0: int

    def __post_init__(self) -> None:
        self._check()

    def coefficients(self) -> Coefficients:
        """See `BatchTime.coefficients`."""
        return Coefficients(c=self.c, a_tok_over=self.a, b0=self.b0)


@dataclass(frozen=True, slots=True)
class Roofline(BatchTime):
    """t = c + a_tok*b + a_tok_over*max(0, b - b0) + a_kv*S + a_attn*Q + a_ctx*C, in seconds.

    Weights are read once (c), tokens cost memory traffic below b0 and arithmetic above it, decodes read their context
    (S), prefill attends to it (Q) and reads it (C).
    """

    c: float
    a_tok: float
    a_tok_over: float
    b0: int
    a_kv: float
    a_attn: float
    a_ctx: float

    def __post_init__(self) -> None:
        self._check()

    def coefficients(self) -> Coefficients:
        """See `BatchTime.coefficients`."""
        return Coefficients(self.c, 0.0, self.a_tok, self.a_tok_over, self.b0, self.a_kv, self.a_attn, self.a_ctx)
