"""Digests of functions, so that a comparison knows whether a stored run is one of the same policy."""

import hashlib
import inspect
import secrets
import sys
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from llmsched_env.code_cache import global_names

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_LIBRARIES = {"numpy", "llmsched_env", "baselines"} | sys.stdlib_module_names
"""Packages whose functions and classes are told by their names: every digest of a run covers the versions of these."""


def function_digest(function: Any) -> str:
    """Text that changes with anything that a policy's decisions depend on.

    - An attribute `digest` of the function or object, if it is text, is taken as it is.
    - A plain function is digested with its source, its defaults and all that its code refers to: numbers, text, arrays,
      containers of these, functions likewise; what the standard library, NumPy and this project define by its name.
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


def _describe(value: Any, above: tuple[types.FunctionType, ...]) -> Any:
    """`value` as something whose `repr` changes with it; `above` are the functions that refer to it."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return value.dtype.str, value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, list | tuple):
        return type(value).__name__, [_describe(item, above) for item in value]
    if isinstance(value, Mapping):
        return "mapping", [(_describe(k, above), _describe(v, above)) for k, v in value.items()]
    library = _name_in_library(value)
    if library is not None:
        return "library", library
    if isinstance(value, types.FunctionType):
        return ("recursion", above.index(value)) if value in above else _describe_function(value, (*above, value))
    raise _NoDigestError


def _name_in_library(value: Any) -> str | None:
    """The name of a module, class or function of one of `_LIBRARIES`; None for anything else."""
    if isinstance(value, types.ModuleType):
        name = value.__name__
    elif isinstance(value, types.MethodType) or not hasattr(value, "__qualname__"):
        return None  # an object, or bound to one, which may hold anything
    else:
        name = f"{getattr(value, '__module__', None)}.{value.__qualname__}"
    return name if name.partition(".")[0] in _LIBRARIES else None


def _describe_function(function: types.FunctionType, above: tuple[types.FunctionType, ...]) -> Any:
    try:
        source = inspect.getsource(function)
        enclosed = [cell.cell_contents for cell in function.__closure__ or ()]
    except (OSError, TypeError, ValueError):  # no source file, or a variable that is not set yet
        raise _NoDigestError from None
    named = sorted(global_names(function.__code__) & function.__globals__.keys())
    globals_ = [(name, function.__globals__[name]) for name in named]
    parts = (function.__defaults__, function.__kwdefaults__, enclosed, globals_)
    return source, [_describe(part, above) for part in parts]
