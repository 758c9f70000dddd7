"""One definition of every kernel and scheduler, run compiled or interpreted.

`compiled` marks a function for numba; `interpreted` returns the same source as plain Python, so that a debugger can
step through the very code that runs fast otherwise.

numba's disk cache looks only at the file a function stands in: after an edit of a primitive, a cached caller in another
file would go on running the old code. The cache folder is therefore named by a digest of all our sources.
"""

import hashlib
import os
import shutil
import types
import warnings
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError, NumbaExperimentalFeatureWarning

_ROOT = Path(__file__).resolve().parents[1]
_MARKS = (b"@compiled", b"import numba", b"from numba")
_KEPT_CACHES = 8

# Function pointers are how schedulers reach the loop without recompiling it; numba still calls them experimental.
warnings.filterwarnings("ignore", category=NumbaExperimentalFeatureWarning)


@cache
def compiled_folders() -> tuple[Path, ...]:
    """The subpackages, and modules beside them, that hold compiled code: it takes its constants from nowhere else."""
    found = set()
    for path in (_ROOT / "llmsched_env").rglob("*.py"):
        inside = path.relative_to(_ROOT / "llmsched_env").parts
        if any(mark in path.read_bytes() for mark in _MARKS):
            found.add(_ROOT / "llmsched_env" / inside[0])
    return (*sorted(found), _ROOT / "baselines")


def source_digest(folders: Iterable[Path] | None = None) -> str:
    """Digest of the sources below these folders (or files); None: of all that holds compiled code."""
    digest = hashlib.sha256()
    for folder in compiled_folders() if folders is None else folders:
        for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]:
            digest.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def cache_folder() -> Path:
    """The folder for machine code of the present sources; folders of older sources are removed."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmsched_env"
    folder = root / source_digest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        others = sorted((p for p in root.iterdir() if p.is_dir() and p != folder), key=lambda p: p.stat().st_mtime)
        for old in others[: -(_KEPT_CACHES - 1)]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError:  # a read-only home, or another process tidying up at the same moment
        pass
    return folder


def compiled(function: Callable[..., Any] | None = None, *, inline: bool = False) -> Any:
    """Decorator: compile with numba at first use, from the disk cache where possible.

    Args:
        function: what to compile. It must not create arrays: without reference counts (`_nrt`), passing a world of some
            sixty arrays around costs nothing, with them a token costs forty times as much.
        inline: always inline it into its callers, for what runs once per token.
    """
    if function is None:
        return partial(compiled, inline=inline)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_folder())
    try:
        return numba.njit(cache=True, nogil=True, _nrt=False, forceinline=inline, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before


def interpreted(function: Any, _twins: dict[Any, Any] | None = None) -> Callable[..., Any]:
    """The plain-Python twin of `function`, calling plain-Python twins of everything compiled that it calls."""
    twins = {} if _twins is None else _twins
    source = getattr(function, "py_func", function)
    if not isinstance(source, types.FunctionType):
        rule: Callable[..., Any] = source  # an object with __call__, or a bound method
        return rule
    if source in twins:
        known: types.FunctionType = twins[source]
        return known
    names = global_names(source.__code__)
    called = {n: v for n in names if isinstance(v := source.__globals__.get(n), Dispatcher)}
    cells = source.__closure__ or ()
    if source is function and not called and not any(isinstance(c.cell_contents, Dispatcher) for c in cells):
        return function
    scope = dict(source.__globals__)
    closure = tuple(types.CellType() for _ in cells) or None
    twin = types.FunctionType(source.__code__, scope, source.__name__, source.__defaults__, closure)
    twin.__kwdefaults__ = source.__kwdefaults__
    twins[source] = twin
    scope.update({name: interpreted(value, twins) for name, value in called.items()})
    for cell, original in zip(closure or (), cells, strict=True):
        value = original.cell_contents
        cell.cell_contents = interpreted(value, twins) if isinstance(value, Dispatcher) else value
    return twin


def global_names(code: types.CodeType) -> set[str]:
    """Names that code refers to, that of the functions within it included; those of attributes are among them."""
    nested = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*(global_names(c) for c in nested))


@cache
def compiled_entry(kernel: Any, signature: tuple[Any, ...]) -> Callable[..., Any]:
    """`kernel` compiled for `signature`, or from the disk cache; without the dispatcher's per-call type checks."""
    kernel.compile(signature)
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
        dispatcher = function if isinstance(function, Dispatcher) else numba.njit(nogil=True)(function)
        try:
            dispatcher.compile(signature)
            _POINTERS[function] = FunctionPointer(dispatcher, signature)
        except NumbaError:
            if dispatcher is function:  # its author asked for compilation: show what is wrong
                raise
            _POINTERS[function] = None
    return _POINTERS[function]
