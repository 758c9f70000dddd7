"""The disk cache of machine code: never stale, never garbled, never in the source tree.

numba's own looks only at the file that a function stands in: after an edit of a primitive, a cached caller in another
file would go on running the old code. Our folder is therefore named by a digest of all our sources, and the code of
functions that are not ours is filed under the sources of all that they call. Where the folder cannot be made, numba
would write to `__pycache__` instead, without that digest; here nothing is kept then. Files carry checksums, since
machine code that is cut short or garbled crashes the process that runs it.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import pickle
import shutil
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.dispatcher import Dispatcher
from numba.core.serialize import dumps

from llmsched_env.files import replacing

_ROOT = Path(__file__).resolve().parents[1]
_MARKS = (b"@compiled", b"import numba", b"from numba")
_KEPT_CACHES = 8
_CHECKSUM = 32  # bytes

misses = 0
"""How many functions have been looked for in the cache and were not there."""


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
def cache_folder() -> Path | None:
    """The folder for machine code of the present sources, None if there can be none; those of older ones are removed.

    Warns:
        RuntimeWarning: if there can be none.
    """
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmsched_env"
        folder = root / source_digest()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # a read-only home, a file in its place, no home at all
        _not_kept(str(error))
        return None
    try:
        os.utime(folder)
        others = sorted((p for p in root.iterdir() if p.is_dir() and p != folder), key=lambda p: p.stat().st_mtime)
        for old in others[: -(_KEPT_CACHES - 1)]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError:  # a folder that can only be read, or another process tidying up at the same moment
        pass
    return folder


@cache
def _not_kept(why: str) -> None:
    """Say once that machine code is not kept."""
    warnings.warn(
        f"machine code cannot be kept: {why}; every process compiles anew, which can take a minute. XDG_CACHE_HOME may "
        "name a folder that can be written",
        RuntimeWarning,
        stacklevel=2,
    )


def keep(dispatcher: Dispatcher) -> None:
    """Have the machine code of a function kept, and taken from where it is kept."""
    folder = cache_folder()
    if folder is not None:
        dispatcher._cache = MachineCode(dispatcher.py_func, folder)


class _Locator:
    """Where the files of one function are; the interface is numba's."""

    def __init__(self, function: types.FunctionType, folder: Path) -> None:
        self._py_file = inspect.getfile(function)
        self._lineno = function.__code__.co_firstlineno
        place = hashlib.sha256(os.path.dirname(os.path.abspath(self._py_file)).encode()).hexdigest()[:16]
        self._folder = folder / f"{Path(self._py_file).parent.name}_{place}"

    def ensure_cache_path(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return ""  # the folder's name and `MachineCode._index_key` say of which sources it is

    def get_disambiguator(self) -> str:
        return str(self._lineno)


class _Impl(CompileResultCacheImpl):  # type: ignore[misc]
    def __init__(self, function: types.FunctionType, folder: Path) -> None:
        self._lineno = function.__code__.co_firstlineno
        self._locator = _Locator(function, folder)
        name = f"{Path(inspect.getfile(function)).stem}.{function.__qualname__}"
        self._filename_base = self.get_filename_base(name, getattr(sys, "abiflags", ""))


class _Files:
    """The code of a function, a file for each signature; what does not agree with its checksum is not there.

    A file is named by all that its code depends on. (numba numbers files in an index; of two processes that write at
    the same time, one then finds the other's code under its own signature.)
    """

    def __init__(self, folder: str, name: str) -> None:
        self._folder, self._name = Path(folder), name

    def path(self, key: Any) -> Path:
        """Of the code for a key: signature, machine, and digests of the source."""
        digest = hashlib.sha256(repr((numba.__version__, key)).encode()).hexdigest()
        return self._folder / f"{self._name}.{digest[:24]}.nbc"

    def load(self, key: Any) -> Any:
        """What `save` wrote, None if it is not there."""
        try:
            content = self.path(key).read_bytes()
        except FileNotFoundError:
            return None
        checksum, content = content[:_CHECKSUM], content[_CHECKSUM:]
        return pickle.loads(content) if hashlib.sha256(content).digest() == checksum else None

    def save(self, key: Any, data: Any) -> None:
        """Write it, at once or not at all."""
        content = dumps(data)
        with replacing(self.path(key)) as partial:
            try:
                partial.write_bytes(hashlib.sha256(content).digest() + content)
            except OSError:
                partial.unlink(missing_ok=True)
                raise

    def flush(self) -> None:
        """Forget all signatures."""
        for path in self._folder.glob(f"{self._name}.*.nbc"):
            path.unlink(missing_ok=True)


class MachineCode(FunctionCache):  # type: ignore[misc]
    """The machine code of one function on disk."""

    def __init__(self, function: types.FunctionType, folder: Path) -> None:
        self._name, self._py_func = repr(function), function
        self._impl = _Impl(function, folder)
        self._cache_path = self._impl.locator.get_cache_path()
        self._cache_file = _Files(self._cache_path, self._impl.filename_base)
        self.enable()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for a signature, None if it is not there or cannot be read."""
        global misses
        try:
            found = super().load_overload(sig, target_context)
        except Exception:
            found = None  # of another numba, or a file that cannot be read: it is compiled again
        misses += found is None
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the code for a signature; a disk that is full, or cannot be written, is told of once."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _not_kept(str(error))

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), "" if _is_ours(self._py_func) else _sources_of(self._py_func))


@cache
def _is_ours(function: types.FunctionType) -> bool:
    path = Path(inspect.getfile(function)).resolve()
    return any(folder == path or folder in path.parents for folder in compiled_folders())


def _sources_of(function: types.FunctionType) -> str:
    """A digest of what a function that is not ours is compiled from: itself, what it calls, and their constants."""
    digest = hashlib.sha256()
    for part in _parts(function, set()):
        digest.update(part + b"\0")
    return digest.hexdigest()


def _parts(value: Any, seen: set[int]) -> Iterator[bytes]:
    function = getattr(value, "py_func", value)
    if isinstance(function, types.ModuleType):
        yield function.__name__.encode()
        path = getattr(function, "__file__", None)
        if path and id(function) not in seen and not _is_library(path):
            seen.add(id(function))
            yield Path(path).read_bytes()
            for own in vars(function).values():
                if isinstance(getattr(own, "py_func", own), types.FunctionType):
                    yield from _parts(own, seen)
    elif isinstance(function, types.FunctionType):
        yield function.__qualname__.encode()
        if id(function) in seen or _is_library(function.__code__.co_filename):
            return
        seen.add(id(function))
        yield from _code_parts(function.__code__)
        for name in sorted(global_names(function.__code__) & function.__globals__.keys()):
            yield name.encode()
            yield from _parts(function.__globals__[name], seen)
        for cell in function.__closure__ or ():
            yield from _parts(cell.cell_contents, seen)
    else:
        yield repr(value).encode() if not hasattr(value, "tobytes") else value.tobytes()


def _code_parts(code: types.CodeType) -> Iterator[bytes]:
    yield code.co_code
    yield repr(code.co_names).encode()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code_parts(constant)
        else:
            yield repr(constant).encode()


@cache
def _is_library(path: str) -> bool:
    """Whether a file is of this project, which the folder's name stands for, or of an installed package."""
    resolved = Path(path).resolve()
    if any(folder == resolved or folder in resolved.parents for folder in compiled_folders()):
        return True
    return any(part in ("site-packages", "dist-packages") for part in resolved.parts) or resolved.is_relative_to(
        Path(os.__file__).parent
    )


def global_names(code: types.CodeType) -> set[str]:
    """Names that code refers to, that of the functions within it included; those of attributes are among them."""
    nested: Iterable[types.CodeType] = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*(global_names(c) for c in nested))
