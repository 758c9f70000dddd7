"""Checks of user input: each raises `ValueError` naming the field, the value and what is allowed."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 80, 80, 80


def shown(value: object) -> str:
    """A value for a message: its `repr`, short whatever its size and depth."""
    return _SHORT.repr(value)[:200]


def did_you_mean(value: str, choices: Iterable[str]) -> str:
    """Return the choices that contain `value` or are closest to it as a sentence, or all of them when none is."""
    known = list(choices)
    close = [choice for choice in known if len(value) > 1 and value.lower() in choice.lower()]
    close = close or difflib.get_close_matches(value, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(choice) for choice in close) + "?"
    return "known: " + (", ".join(repr(choice) for choice in known) or "none")


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        ValueError: it is not; the message proposes the closest choices.
    """
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise ValueError(
            f"{name} must be one of the known names, got {shown(value)}; {did_you_mean(str(value), known)}"
        )
    return value


def check_number(
    name: str,
    value: float,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    unit: str = "",
    finite: bool = True,
) -> float:
    """Return `value` as a float if it is a number within the bounds.

    Raises:
        ValueError: it is not a real number, a bool, NaN, out of bounds, or infinite while `finite`.
    """
    allowed = _allowed("a finite number" if finite else "a number", above, at_least, at_most, unit)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number) or (finite and math.isinf(number)) or not _inside(number, above, at_least, at_most):
        raise ValueError(f"{name} must be {allowed}, got {number:g}")
    return number


def check_integer(
    name: str, value: int, *, at_least: int | None = None, at_most: int | None = None, unit: str = ""
) -> int:
    """Return `value` as an int if it is a whole number within the bounds.

    Raises:
        ValueError: it is not an integer (Python or NumPy), a bool, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not _inside(value, None, at_least, at_most):
        raise ValueError(f"{name} must be {_allowed('an integer', None, at_least, at_most, unit)}, got {shown(value)}")
    return int(value)


def check_range(name: str, value: Sequence[float], *, above: float | None = None) -> tuple[float, float]:
    """Return `value` as (low, high) if it is two numbers above the bound, the second at least the first.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{name} must be two numbers, low and high, got {shown(value)}")
    low = check_number(f"{name}[0]", value[0], above=above)
    return low, check_number(f"{name}[1]", value[1], at_least=low)


def _inside(value: float, above: float | None, at_least: float | None, at_most: float | None) -> bool:
    return (
        (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (at_most is None or value <= at_most)
    )


def _allowed(kind: str, above: float | None, at_least: float | None, at_most: float | None, unit: str) -> str:
    signs = ((">", above), (">=", at_least), ("<=", at_most))
    bounds = [f"{sign} {bound:g}" for sign, bound in signs if bound is not None]
    return f"{kind} {' and '.join(bounds)}".rstrip() + (f" ({unit})" if unit else "")
