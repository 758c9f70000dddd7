"""Batches that ran: what was in each, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """Compositions and times of n batches, f8[n] each.

    Attributes:
        total_tokens: tokens in the batch (b).
        decode_kv_tokens: context tokens that its decodes read (S).
        prefill_attn_pairs: query-key pairs of its prefill chunks (Q).
        prefill_context_tokens: context tokens before these chunks (C).
        num_seqs: requests in the batch; nan where it is not known.
        seconds: time of the batch.
    """

    total_tokens: np.ndarray
    decode_kv_tokens: np.ndarray
    prefill_attn_pairs: np.ndarray
    prefill_context_tokens: np.ndarray
    num_seqs: np.ndarray
    seconds: np.ndarray

    def __post_init__(self) -> None:
        sizes = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"batches must have arrays of one length, got {sizes}")

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def composition(self) -> tuple[np.ndarray, ...]:
        """Arguments of `BatchTime.seconds`; one request where their number is not known."""
        known = np.where(np.isnan(self.num_seqs), 1.0, self.num_seqs)
        return (
            self.total_tokens,
            self.decode_kv_tokens,
            self.prefill_attn_pairs,
            self.prefill_context_tokens,
            known,
        )

    @property
    def requests_known(self) -> bool:
        """Whether the number of requests of every batch is known."""
        return not np.any(np.isnan(self.num_seqs))

    @property
    def hold_prefill(self) -> np.ndarray:
        """bool[n]: whether the batch holds prefill."""
        holds: np.ndarray = self.prefill_attn_pairs > 0
        return holds

    def part(self, rows: np.ndarray) -> Self:
        """The batches of a mask or of row numbers."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))
