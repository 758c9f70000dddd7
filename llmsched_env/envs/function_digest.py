"""Digests of functions, so that a comparison knows whether a stored run is one of the same policy."""

import hashlib
import inspect
import secrets
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def function_digest(function: Any) -> str:
    """Text that changes with anything that a policy's decisions depend on.

    - An attribute `digest` of the function or object, if it is text, is taken as it is.
    - A plain function is digested with its source, its defaults and all that its code refers to by name: numbers, text,
      arrays, containers of these, functions likewise, and modules by their names.
    - For everything else, such as an object with weights of its own, the digest is random: runs are stored under it,
      but never found again by another process or another call of `as_scheduler`.
    """
    own = getattr(function, "digest", None)
    if isinstance(own, str):
        return own
    try:
        return hashlib.sha256(repr(_describe(function, ())).encode()).hexdigest()
    except _NoDigestError:
        return secrets.token_hex(32)


class _NoDigestError(Exception):
    """A value of which it cannot be said on what it depends."""


def _describe(value: Any, above: tuple[Any, ...]) -> Any:
    """`value` as something whose `repr` changes with it; `above` are the functions that refer to it."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return value.dtype.str, value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, list | tuple):
        return type(value).__name__, [_describe(item, above) for item in value]
    if isinstance(value, Mapping):
        return "mapping", [(_describe(k, above), _describe(v, above)) for k, v in value.items()]
    if isinstance(value, types.ModuleType):
        return "module", value.__name__
    if isinstance(value, types.BuiltinFunctionType | np.ufunc) or (isinstance(value, type) and _of_library(value)):
        return "library", getattr(value, "__module__", None), getattr(value, "__qualname__", value.__name__)
    if isinstance(value, types.FunctionType):
        if value in above:
            return "recursion", above.index(value)
        return _describe_function(value, (*above, value))
    raise _NoDigestError


def _of_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("builtins", "numpy", "math")


def _describe_function(function: types.FunctionType, above: tuple[Any, ...]) -> Any:
    try:
        source = inspect.getsource(function)
        named = inspect.getclosurevars(function)
    except (OSError, TypeError, ValueError):
        raise _NoDigestError from None
    if function.__module__.partition(".")[0] == "numpy":
        return "library", function.__module__, function.__qualname__
    others = [function.__defaults__, function.__kwdefaults__, dict(named.nonlocals), dict(named.globals)]
    return source, [_describe(other, above) for other in others]
