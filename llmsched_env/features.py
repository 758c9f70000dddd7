"""Features: one row each of name, meaning, scale and the function that measures it.

What a policy or an agent sees is a table of them. Places in vectors, spaces of environments and tables in docstrings
follow from the order of the rows; nothing else knows a place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log1p
from typing import Any, Protocol

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

from llmsched_env.compiled import compiled


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature.

    Attributes:
        name: by which weights are stored and places are looked up.
        meaning: with the unit.
        scale: the value that `scaled` maps to 1; None: `measure` gives a share in [0, 1], or scales by itself.
        measure: a function that numba can compile; its arguments are those of the table's writer but the last.
        signed: whether the value may be negative: 0 maps to 0.5, `scale` to 1 and -`scale` to 0.
    """

    name: str
    meaning: str
    scale: float | None
    measure: Callable[..., float]
    signed: bool = False


class Row(Protocol):
    """A row of a table that `writer` accepts: a feature, or a reward of an environment."""

    @property
    def measure(self) -> Callable[..., float]:
        """A function that numba can compile."""


def names(features: Sequence[Feature]) -> tuple[str, ...]:
    """The names of `features`, in order."""
    return tuple(feature.name for feature in features)


def writer(rows: Sequence[Row], arguments: Sequence[str]) -> Any:
    """A compiled function `write(*arguments, out)` that measures every row into its place of `out`."""
    given = ", ".join(arguments)
    return _writer(rows, arguments, [f"measure_{k}({given})" for k in range(len(rows))], {})


def scaled_writer(features: Sequence[Feature], arguments: Sequence[str], rounded: bool = False) -> Any:
    """A compiled function `write(*arguments, out)` that measures and scales every feature into its place of `out`.

    Args:
        features: the table.
        arguments: names of the arguments of its `measure` functions.
        rounded: whether measured values are rounded to float32 before they are scaled.
    """
    given = ", ".join(arguments)
    measured = f"float32(measure_{{}}({given}))" if rounded else f"measure_{{}}({given})"
    values = [
        f"{'scaled_signed' if feature.signed else 'scaled'}({measured.format(k)}, {float(scale)!r})"
        for k, (feature, scale) in enumerate(zip(features, scales(features), strict=True))
    ]
    called = {"scaled": scaled, "scaled_signed": scaled_signed, "float32": np.float32}
    return _writer(features, arguments, values, called)


def _writer(rows: Sequence[Row], arguments: Sequence[str], values: Sequence[str], scope: dict[str, Any]) -> Any:
    """A compiled function that evaluates `values`, expressions of the arguments and of `measure_<k>`, into `out`."""
    # Only `write` is called from Python: wrapping every row for it would take most of the time to compile.
    unwrapped = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    scope = scope | {f"measure_{k}": _compiled(row.measure, **unwrapped) for k, row in enumerate(rows)}
    lines = [f"    out[{k}] = {value}" for k, value in enumerate(values)] or ["    pass"]
    exec("\n".join([f"def write({', '.join(arguments)}, out):", *lines]), scope)  # numba needs places as constants
    return _compiled(scope["write"])


def _compiled(function: Any, **options: bool) -> Any:
    if isinstance(function, Dispatcher):
        return function
    return numba.njit(nogil=True, _nrt=False, forceinline=True, error_model="numpy", **options)(function)


def scales(features: Sequence[Feature]) -> np.ndarray:
    """f8[features]: 1 / log(1 + scale) of each; 0 where a feature has no scale."""
    return np.array([0.0 if feature.scale is None else 1 / log1p(feature.scale) for feature in features])


@compiled(inline=True)
def scaled(value, scale):
    """log(1 + value) / log(1 + scale), where `scale` is one of `scales`; the value itself if that is 0; in [0, 1]."""
    number = np.float64(value)
    if scale > 0.0 and number > 0.0:  # many are 0 most of the time, and a logarithm takes long
        number = np.log1p(number) * scale
    return min(1.0, max(0.0, number))


@compiled(inline=True)
def scaled_signed(value, scale):
    """As `scaled` on both sides of 0, which maps to 0.5."""
    half = 0.5 * min(1.0, np.log1p(abs(value)) * scale)
    return 0.5 + half if value >= 0.0 else 0.5 - half


def markdown_table(features: Sequence[Feature], first: int = 0) -> str:
    """The rows `| place | name | meaning | scale |` of a table in a docstring."""
    scale = lambda feature: "share" if feature.scale is None else f"{feature.scale:.12g}"  # noqa: E731
    return "\n".join(
        f"| {first + k} | `{feature.name}` | {feature.meaning} | {scale(feature)} |"
        for k, feature in enumerate(features)
    )
