"""A claim of an experiment and whether it holds: a row of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmsched_env.evaluation.table import format_interval
from llmsched_env.intervals import mean_interval
from llmsched_env.results.stability import Stability

Value = float | str | None
Verdict = Literal["pass", "fail", "undecided", "pending"]

_ROUNDING = 1e-6  # smaller relative tolerances only allow for rounding
_STANDARD_ERRORS = 4  # a correct simulator is outside about once in ten thousand


@dataclass(frozen=True, slots=True)
class Check:
    """One claim.

    Attributes:
        name: what is measured, with its unit.
        published: the value in the paper.
        theory: the value of a formula.
        ours: the value of the simulation, or its mean over seeds.
        half_width: of the 95 % interval of `ours` over seeds; nan if nothing is random.
        verdict: "undecided" if the interval allows both answers, "pending" if it cannot be run yet.
        note: the condition to pass, and remarks.
    """

    name: str
    published: Value
    theory: Value
    ours: Value
    half_width: float
    verdict: Verdict
    note: str

    @property
    def failed(self) -> bool:
        """Whether reproduction failed; an undecided check counts as failed."""
        return self.verdict in ("fail", "undecided")


def exactly(name: str, ours: Value, *, published: Value = None, theory: Value = None, note: str = "") -> Check:
    """Passes if `ours` equals `theory`, or `published` if there is no theory."""
    expected = published if theory is None else theory
    return Check(name, published, theory, ours, math.nan, "pass" if ours == expected else "fail", _join("exact", note))


def close(
    name: str, ours: float, tolerance: float, *, published: Value = None, theory: Value = None, note: str = ""
) -> Check:
    """Passes if `ours`, which is not random, is within a relative tolerance of `theory`, or else of `published`."""
    expected = float(published if theory is None else theory)  # type: ignore[arg-type]
    verdict: Verdict = "pass" if abs(ours - expected) <= tolerance * abs(expected) else "fail"
    rule = "rounding apart, equal to" if tolerance < _ROUNDING else f"within {100 * tolerance:.3g} % of"
    rule += " the published value" if theory is None else " theory"
    return Check(name, published, theory, ours, math.nan, verdict, _join(rule, note))


def in_range(
    name: str,
    values: Sequence[float],
    low: float,
    high: float,
    *,
    published: Value = None,
    theory: Value = None,
    note: str = "",
) -> Check:
    """Passes if the interval of the mean of `values` (one a seed, or a single one) lies in [low, high]."""
    ours, half_width = mean_interval(values)
    verdict = interval_verdict(ours, 0.0 if len(values) == 1 else half_width, low, high)
    return Check(name, published, theory, ours, half_width, verdict, _join(_range_text(low, high, len(values)), note))


def agrees(
    name: str, values: Sequence[float], theory: float, largest_error: float, *, published: Value = None, note: str = ""
) -> Check:
    """Passes if the mean of `values` (one a seed) is within 4 standard errors of theory.

    Undecided if the standard error is above `largest_error`, as almost anything would pass then.
    """
    ours, half_width = mean_interval(values)
    error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    verdict: Verdict = "pass" if abs(ours - theory) <= _STANDARD_ERRORS * error else "fail"
    if not error <= largest_error:
        verdict = "undecided"
    rule = f"within {_STANDARD_ERRORS} standard errors of theory, standard error ≤ {largest_error:.3g}"
    return Check(name, published, theory, ours, half_width, verdict, _join(rule, f"{len(values)} seeds", note))


def stability_is(
    name: str,
    stability: Stability,
    expected: Literal["stable", "unstable"],
    *,
    published: Value = None,
    note: str = "",
) -> Check:
    """Passes if `stability` finds what theory expects."""
    verdict: Verdict = "pass" if stability.verdict == expected else "fail"
    if stability.verdict == "undecided":
        verdict = "undecided"
    slope, half_width = format_interval(100 * stability.slope, 100 * stability.half_width)
    growth = f"decided, and as theory says; the backlog grows by {slope} ± {half_width} % of the offered tokens"
    return Check(name, published, expected, stability.verdict, math.nan, verdict, _join(growth, note))


def pending(name: str, note: str, *, published: Value = None, theory: Value = None) -> Check:
    """A claim that cannot be tested yet; not a failure."""
    return Check(name, published, theory, None, math.nan, "pending", note)


def interval_verdict(value: float, half_width: float, low: float, high: float) -> Verdict:
    """Whether an interval lies within [low, high] or outside; undecided if it does neither, or is nan."""
    bottom, top = value - half_width, value + half_width
    if low <= bottom and top <= high:
        return "pass"
    return "fail" if top < low or bottom > high else "undecided"


def _range_text(low: float, high: float, values: int) -> str:
    what = "interval " if values > 1 else ""
    if math.isinf(high):
        return f"{what}at least {low:g}"
    return f"{what}at most {high:g}" if math.isinf(low) else f"{what}within {low:g} to {high:g}"


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
