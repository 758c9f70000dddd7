"""Fits of batch-time laws to measured batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llmsched_env.machine.batch_time import BatchTime, Hinge, Roofline, Staircase
from llmsched_env.machine.batches import Batches
from llmsched_env.machine.least_squares import fit_relative
from llmsched_env.machine.tabulated_fit import fit_tabulated
from llmsched_env.validation import check_choice

_KNEES = range(8, 513, 8)  # b0: GPUs turn from memory-bound to compute-bound within a few hundred tokens


class Form(NamedTuple):
    """A linear form of batch-time law: terms with coefficients >= 0, the first one constant, and the knee b0."""

    law: Callable[..., BatchTime]
    coefficients: tuple[str, ...]
    terms: Callable[[Batches, int], tuple[np.ndarray, ...]]


_LINEAR: dict[str, Form] = {
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


FORMS = (*_LINEAR, "tabulated")
"""Forms that `fit` knows."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A batch-time law fitted to batches.

    Attributes:
        form: "roofline", "staircase", "hinge" or "tabulated".
        law: the law.
        batches: the batches that it was fitted to.
        error: predicted over measured time of each batch, minus 1, f8[n].
        parameters: how many numbers were fitted, b0 left out.
    """

    form: str
    law: BatchTime
    batches: Batches
    error: np.ndarray
    parameters: int

    @property
    def mape_pct(self) -> float:
        """Mean absolute relative error, percent."""
        return float(100 * np.mean(np.abs(self.error)))

    @property
    def p95_pct(self) -> float:
        """95th percentile of the absolute relative error, percent."""
        return float(100 * np.quantile(np.abs(self.error), 0.95))

    @property
    def total_ratio(self) -> float:
        """Measured over predicted time of all batches together."""
        return float(np.sum(self.batches.seconds) / np.sum(self.batches.seconds * (1 + self.error)))

    def bias_pct(self, share: np.ndarray) -> float:
        """Error of some batches on average, percent; positive if they are predicted too slow.

        It is that of the mean of measured over predicted time, which scatter of the measurements leaves at 1.
        """
        return float(100 * (1 / np.mean(1 / (1 + self.error[share])) - 1))


def fit(batches: Batches, form: str = "roofline") -> Fit:
    """Fit a form by non-negative least squares of the relative error, see `fit_relative`.

    The b0 of a linear form is the best of 8, 16, ..., 512. The knots of a tabulated one lie where the batches are;
    where no batch only decodes, or none holds prefill, both of its tables are the same.

    Raises:
        ValueError: an unknown form, or fewer batches than it has parameters.
    """
    tabulated = check_choice("form", form, FORMS) == "tabulated"
    law, parameters = fit_tabulated(batches) if tabulated else _linear(batches, form)
    error = law.seconds(*batches.composition) / batches.seconds - 1
    return Fit(form=form, law=law, batches=batches, error=error, parameters=parameters)


def _linear(batches: Batches, form: str) -> tuple[BatchTime, int]:
    shape = _LINEAR[form]
    needed = len(shape.coefficients) + 1
    if len(batches) < needed:
        raise ValueError(f"a fit of the {form} form needs {needed} batches or more, got {len(batches)}")
    knee, solution = fit_relative(batches.seconds, lambda b0: np.column_stack(shape.terms(batches, b0)), _KNEES)
    solution[0] = max(solution[0], 1e-6 * batches.seconds.min())  # every batch takes time
    return shape.law(**dict(zip(shape.coefficients, solution.tolist(), strict=True)), b0=knee), needed - 1
