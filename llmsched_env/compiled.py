"""One definition of every kernel and scheduler, run compiled or interpreted.

`compiled` marks a function for numba; `interpreted` returns the same source as plain Python, so that a debugger can
step through the very code that runs fast otherwise; `bounds_checked` returns it compiled with every index checked.
"""

import atexit
import os
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numba
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError, NumbaExperimentalFeatureWarning

from llmsched_env import code_cache
from llmsched_env.code_cache import cache_folder, global_names, keep
from llmsched_env.interrupts import beside

_SAY_AFTER = 2.0  # s

# Function pointers are how schedulers reach the loop without recompiling it; numba still calls them experimental.
warnings.filterwarnings("ignore", category=NumbaExperimentalFeatureWarning)


def compiled(function: Callable[..., Any] | None = None, *, inline: bool = False) -> Any:
    """Decorator: compile with numba at first use, from the disk cache where possible.

    Args:
        function: what to compile. It must not create arrays: without reference counts (`_nrt`), passing a world of some
            sixty arrays around costs nothing, with them a token costs forty times as much.
        inline: always inline it into its callers, for what runs once per token.
    """
    if function is None:
        return partial(compiled, inline=inline)
    dispatcher = numba.njit(nogil=True, _nrt=False, forceinline=inline, error_model="numpy")(function)
    if isinstance(dispatcher, Dispatcher):  # it is the function itself where numba is switched off
        keep(dispatcher)
    return dispatcher


def interpreted(function: Any) -> Callable[..., Any]:
    """The plain-Python twin of `function`, calling plain-Python twins of everything compiled that it calls."""
    rule: Callable[..., Any] = _twin(function, {}, lambda original, twin: twin)
    return rule


def bounds_checked(function: Any) -> Any:
    """The twin of `function`, compiled at first use with every index checked, and so all compiled that it calls.

    An index that is out of bounds raises IndexError. It stays as it is if it is not a function (an object with
    `__call__`, or a bound method).
    """

    def checked(original: Any, twin: types.FunctionType) -> Any:
        options = dict(getattr(original, "targetoptions", {"nogil": True})) | {"boundscheck": True}
        options.pop("nopython", None)  # which `njit` implies
        return numba.njit(**options)(twin)

    return _twin(function, {}, checked, always=True)


def _twin(
    function: Any, twins: dict[Any, Any], make: Callable[[Any, types.FunctionType], Any], always: bool = False
) -> Any:
    """What `make` makes of a function and of its copy, in which all compiled functions it calls are such twins.

    Args:
        function: compiled or plain.
        twins: those that are made already, by their source.
        make: from a function, and its copy in plain Python, to its twin.
        always: also of a plain function that calls nothing compiled.
    """
    source = getattr(function, "py_func", function)
    if not isinstance(source, types.FunctionType):
        return source  # an object with __call__, or a bound method
    if source in twins:
        return twins[source]
    names = global_names(source.__code__)
    called = {n: v for n in names if isinstance(v := source.__globals__.get(n), Dispatcher)}
    cells = source.__closure__ or ()
    plain = source is function and not called and not any(isinstance(c.cell_contents, Dispatcher) for c in cells)
    if plain and not always:
        return function
    scope = dict(source.__globals__)
    closure = tuple(types.CellType() for _ in cells) or None
    copy = types.FunctionType(source.__code__, scope, source.__name__, source.__defaults__, closure)
    copy.__kwdefaults__ = source.__kwdefaults__
    twins[source] = twin = make(function, copy)
    scope.update({name: _twin(value, twins, make, always) for name, value in called.items()})
    for cell, original in zip(closure or (), cells, strict=True):
        value = original.cell_contents
        cell.cell_contents = _twin(value, twins, make, always) if isinstance(value, Dispatcher) else value
    return twin


_left_compiling: list[threading.Thread] = []


def _compile(dispatcher: Dispatcher, signature: tuple[Any, ...]) -> None:
    """Compile, or load from the cache, for a signature; Ctrl-C is obeyed meanwhile, and what takes long is told of."""
    if signature in dispatcher.overloads:
        return
    started, misses = time.monotonic(), code_cache.misses

    def tick() -> None:
        if time.monotonic() - started > _SAY_AFTER and code_cache.misses > misses:
            _say_once()

    beside(lambda: dispatcher.compile(signature), "compile", tick, _left_compiling)


@cache
def _say_once() -> None:
    folder = cache_folder()
    kept = "" if folder is None else f"; it is kept in {folder}"
    print(f"llmsched_env: compiling machine code, which can take a minute{kept}", file=sys.stderr, flush=True)


def _leave_compiler() -> None:
    """End the process at once where an interrupted compilation still runs: tearing it down would crash it."""
    if any(thread.is_alive() for thread in _left_compiling):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)


atexit.register(_leave_compiler)


@cache
def compiled_entry(kernel: Any, signature: tuple[Any, ...]) -> Callable[..., Any]:
    """`kernel` compiled for `signature`, or from the disk cache; without the dispatcher's per-call type checks."""
    _compile(kernel, signature)
    entry: Callable[..., Any] = kernel.overloads[signature].entry_point
    return entry


class FunctionPointer:
    """A compiled function with the addresses of its machine code at hand.

    Handing a dispatcher to compiled code makes numba look its addresses up by signature, which takes longer than many
    batches. numba asks for the address of the C wrapper first, and takes that of the native code, which lets exceptions
    through, only from a dispatcher: hence the borrowed `__class__`.
    """

    __class__ = Dispatcher

    def __init__(self, dispatcher: Dispatcher, signature: tuple[Any, ...]) -> None:
        self.dispatcher = dispatcher  # keeps the machine code alive
        result = dispatcher.overloads[signature]
        self.fndesc, self.library = result.fndesc, self
        address = result.library.get_pointer_to_function
        self._native, self._c = address(self.fndesc.llvm_func_name), address(self.fndesc.llvm_cfunc_wrapper_name)

    def __wrapper_address__(self) -> int:
        return int(self._c)

    def get_compile_result(self, signature: Any) -> "FunctionPointer":
        return self

    def get_pointer_to_function(self, name: str) -> int:
        return int(self._native)


_POINTERS: dict[Any, FunctionPointer | None] = {}


def function_pointer(function: Callable[..., Any], signature: tuple[Any, ...]) -> FunctionPointer | None:
    """`function` (of a scheduler, router or observation) compiled for its one signature; None if numba cannot."""
    if not isinstance(function, Dispatcher | types.FunctionType):
        return None  # an object with __call__, or a bound method
    if function not in _POINTERS:
        plain = not isinstance(function, Dispatcher)  # of a user: an index out of bounds raises IndexError
        dispatcher = numba.njit(nogil=True, boundscheck=True)(function) if plain else function
        try:
            _compile(dispatcher, signature)
            _POINTERS[function] = FunctionPointer(dispatcher, signature)
        except NumbaError:
            if dispatcher is function:  # its author asked for compilation: show what is wrong
                raise
            _POINTERS[function] = None
    return _POINTERS[function]
