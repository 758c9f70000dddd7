"""Reading pickles of torch and of Stable-Baselines3 without running anything that is in them.

A pickle is a program that may call any function that it can name. Here it can name only what arrays are made of; all
else is refused (`read_tensors`), or stands for an object that does nothing (`read_state`).
"""

import pickle
import re
import zipfile
import zlib
from collections import OrderedDict
from io import BytesIO
from math import prod
from pathlib import PurePosixPath
from typing import Any

import numpy as np

_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "BoolStorage": "?",
}
_NUMBERS = re.compile(r"[<>]?[fiu][1248]|b1")
_MALFORMED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What reading a file that was cut short or tampered with may raise."""


def read_tensors(content: bytes) -> dict[str, np.ndarray]:
    """The tensors in a file of `torch.save` of a `state_dict`, in torch's zip format, by name.

    Raises:
        ValueError: if it is another format, holds anything else, or is malformed.
    """
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            pickled = [name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl"]
            if len(pickled) != 1:
                raise ValueError(f"one data.pkl is expected in it, got {len(pickled)}")
            state = _TensorUnpickler(archive, pickled[0]).load()
    except _MALFORMED as error:
        raise ValueError(f"its weights cannot be read: {error}") from None
    if not isinstance(state, dict) or not all(isinstance(v, np.ndarray) for v in state.values()):
        raise ValueError(f"its weights must be tensors by name, got {type(state).__name__}")
    return dict(state)


class _TensorUnpickler(pickle.Unpickler):
    """Reads tensors as arrays; their numbers lie in members of the archive next to the pickle."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        super().__init__(BytesIO(archive.read(name)))
        self._archive, self._folder = archive, str(PurePosixPath(name).parent)
        order = f"{self._folder}/byteorder"
        self._order = ">" if order in archive.namelist() and archive.read(order) == b"big" else "<"

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _rebuild_tensor
        if module == "collections" and name == "OrderedDict":
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no weights need")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _, count = pid
        if kind != "storage" or dtype not in _STORAGES.values():
            raise pickle.UnpicklingError(f"it refers to {kind!r} of {dtype!r}")
        content = self._archive.read(f"{self._folder}/data/{key}")
        return np.frombuffer(content, np.dtype(dtype).newbyteorder(self._order), count)


def _rebuild_tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> np.ndarray:
    """The array of these strides (in elements) over a storage, which it must not leave."""
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or (prod(shape) > 0 and last >= len(storage)):
        raise pickle.UnpicklingError(f"a tensor of shape {shape} does not fit its {len(storage)} numbers")
    step = storage.itemsize
    view = np.lib.stride_tricks.as_strided(storage[offset:], shape, [step * stride for stride in strides])
    return np.array(view, storage.dtype.newbyteorder("="))


class Stub:
    """Stands for an object of a pickle of any class: it does nothing, and keeps its state in `fields`."""

    origin = ""
    fields: dict[str, Any]

    def __new__(cls, *_: Any, **__: Any) -> "Stub":
        stub = super().__new__(cls)
        stub.fields = {}
        return stub

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.fields = state

    def append(self, item: Any) -> None:
        """Nothing: what a pickled sequence holds is not wanted."""

    def extend(self, items: Any) -> None:
        """Nothing, as `append`."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Nothing: nor what a mapping holds."""


class _DType(Stub):
    """A dtype of NumPy, as the text that makes it."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.code = f"{state[1]}{self.code}"


class _Array(Stub):
    """An array, or a number, of NumPy; `value` is None if it does not hold plain numbers."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_column, content = state
        self.set(content, dtype, shape, "F" if by_column else "C")

    def set(self, content: Any, dtype: Any, shape: Any, order: Any) -> "_Array":
        """Take the numbers from bytes."""
        if isinstance(dtype, _DType) and isinstance(dtype.code, str) and _NUMBERS.fullmatch(dtype.code):
            self.value = np.frombuffer(content, dtype.code).reshape(shape, order=order)
        return self


_NUMPY = {
    "ndarray": Stub,
    "dtype": _DType,
    "_reconstruct": _Array,
    "_frombuffer": lambda content, dtype, shape, order, *_: _Array().set(content, dtype, shape, order),
    "scalar": lambda dtype, content=b"": _Array().set(content, dtype, (), "C"),
}
"""What the pickle of an array names, by its last name: where it is has changed with NumPy's versions."""


def read_state(content: bytes) -> Stub:
    """The object in a pickle, as a stub whose `fields` may be stubs again.

    Raises:
        ValueError: if it holds something else than an object, or is malformed.
    """
    try:
        state = _InertUnpickler(BytesIO(content)).load()
    except _MALFORMED as error:
        raise ValueError(f"it is no pickle that can be read: {error}") from None
    if not isinstance(state, Stub):
        raise ValueError(f"it must hold an object, got {type(state).__name__}")
    return state


def plain(value: Any) -> Any:
    """The array that a value of `fields` stands for, or the value as it is."""
    return value.value if isinstance(value, _Array) else value


class _InertUnpickler(pickle.Unpickler):
    """Knows NumPy's arrays of numbers; every other class or function is a stub."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in _NUMPY:
            return _NUMPY[name]
        return type("Stub", (Stub,), {"origin": f"{module}.{name}"})
