"""Features: one row each of name, meaning, scale and the function that measures it.

What a policy or an agent sees is a table of them. Places in vectors, spaces of environments and tables in docstrings
follow from the order of the rows; nothing else knows a place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log1p
from typing import Any

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

from llmsched_env.simulator.compiled import compiled


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature.

    Attributes:
        name: by which weights are stored and places are looked up.
        meaning: with the unit.
        scale: the value that `squash` maps to 1; None: `measure` gives a share in [0, 1], or scales by itself.
        measure: a function that numba can compile; its arguments are those of the table's writer but the last.
    """

    name: str
    meaning: str
    scale: float | None
    measure: Callable[..., float]


def names(features: Sequence[Feature]) -> tuple[str, ...]:
    """The names of `features`, in order."""
    return tuple(feature.name for feature in features)


def writer(features: Sequence[Feature], arguments: Sequence[str]) -> Any:
    """A compiled function `write(*arguments, out)` that measures every feature into its place of `out`."""
    # Only `write` is called from Python; wrappers of rows that take a view would be most of what is compiled.
    unwrapped = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    scope: dict[str, Any] = {
        f"measure_{k}": _compiled(feature.measure, **unwrapped) for k, feature in enumerate(features)
    }
    given = ", ".join(arguments)
    lines = [f"    out[{k}] = measure_{k}({given})" for k in range(len(features))]
    exec("\n".join([f"def write({given}, out):", *(lines or ["    pass"])]), scope)  # places must be constants
    return _compiled(scope["write"])


def _compiled(function: Any, **options: bool) -> Any:
    if isinstance(function, Dispatcher):
        return function
    return numba.njit(nogil=True, _nrt=False, forceinline=True, error_model="numpy", **options)(function)


def scales(features: Sequence[Feature]) -> np.ndarray:
    """f8[features]: 1 / log(1 + scale) of each; 0 where a feature has no scale."""
    return np.array([0.0 if feature.scale is None else 1 / log1p(feature.scale) for feature in features])


@compiled
def squash(scale, out):
    """Map every measured value x to log(1 + x) / log(1 + scale), or x where there is no scale, clipped to [0, 1]."""
    for k in range(len(out)):
        value = np.float64(out[k])
        if scale[k] > 0.0 and value > 0.0:  # many are 0 most of the time, and a logarithm takes long
            value = np.log1p(value) * scale[k]
        out[k] = min(1.0, max(0.0, value))


def markdown_table(features: Sequence[Feature], first: int = 0) -> str:
    """The rows `| place | name | meaning | scale |` of a table in a docstring."""
    scale = lambda feature: "share" if feature.scale is None else f"{feature.scale:g}"  # noqa: E731
    return "\n".join(
        f"| {first + k} | `{feature.name}` | {feature.meaning} | {scale(feature)} |"
        for k, feature in enumerate(features)
    )
