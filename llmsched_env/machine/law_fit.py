"""Fits of batch-time laws to measured batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llmsched_env.machine.batch_time import BatchTime, Hinge, Roofline, Staircase
from llmsched_env.machine.batches import Batches
from llmsched_env.validation import check_choice

_KNEES = range(8, 513, 8)  # b0: GPUs turn from memory-bound to compute-bound within a few hundred tokens


class Form(NamedTuple):
    """A form of batch-time law: terms with coefficients >= 0, the first one constant, and the knee b0."""

    law: Callable[..., BatchTime]
    coefficients: tuple[str, ...]
    terms: Callable[[Batches, int], tuple[np.ndarray, ...]]


FORMS: dict[str, Form] = {
    "roofline": Form(
        Roofline,
        ("c", "a_tok", "a_tok_over", "a_kv", "a_attn", "a_ctx"),
        lambda rows, b0: (
            np.ones(len(rows)),
            rows.total_tokens,
            np.maximum(0, rows.total_tokens - b0),
            rows.decode_kv_tokens,
            rows.prefill_attn_pairs,
            rows.prefill_context_tokens,
        ),
    ),
    "staircase": Form(Staircase, ("c", "a"), lambda rows, b0: (np.ones(len(rows)), np.ceil(rows.total_tokens / b0))),
    "hinge": Form(Hinge, ("c", "a"), lambda rows, b0: (np.ones(len(rows)), np.maximum(0, rows.total_tokens - b0))),
}


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A batch-time law fitted to batches.

    Attributes:
        form: "roofline", "staircase" or "hinge".
        law: the law.
        batches: the batches that it was fitted to.
        error: predicted over measured time of each batch, minus 1, f8[n].
    """

    form: str
    law: BatchTime
    batches: Batches
    error: np.ndarray

    @property
    def mape_pct(self) -> float:
        """Mean absolute relative error, percent."""
        return float(100 * np.mean(np.abs(self.error)))

    @property
    def p95_pct(self) -> float:
        """95th percentile of the absolute relative error, percent."""
        return float(100 * np.quantile(np.abs(self.error), 0.95))

    def bias_pct(self, share: np.ndarray) -> float:
        """Mean relative error of some batches, percent; positive if they are predicted too slow."""
        return float(100 * np.mean(self.error[share]))


def fit(batches: Batches, form: str = "roofline") -> Fit:
    """Fit a form by non-negative least squares of the relative error, with the best b0 of 8, 16, ..., 512.

    Raises:
        ValueError: an unknown form, fewer batches than it has parameters, or batches that no such law describes.
    """
    from scipy.optimize import nnls

    shape = FORMS[check_choice("form", form, FORMS)]
    needed = len(shape.coefficients) + 1
    if len(batches) < needed:
        raise ValueError(f"a fit of the {form} form needs {needed} batches or more, got {len(batches)}")
    best, knee, coefficients = np.inf, 0, np.zeros(needed - 1)
    for b0 in _KNEES:
        terms = np.column_stack(shape.terms(batches, b0)) / batches.seconds[:, None]
        scale = np.linalg.norm(terms, axis=0)
        scale[scale == 0] = 1.0  # the coefficient of a term that no batch has becomes 0
        solution, residual = nnls(terms / scale, np.ones(len(batches)))
        if residual < best:
            best, knee, coefficients = residual, b0, solution / scale
    coefficients[0] = max(coefficients[0], 1e-6 * batches.seconds.min())  # every batch takes time
    law = shape.law(**dict(zip(shape.coefficients, coefficients.tolist(), strict=True)), b0=knee)
    error = law.seconds(*batches.composition) / batches.seconds - 1
    return Fit(form=form, law=law, batches=batches, error=error)
