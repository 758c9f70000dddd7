"""Named fields: records of numbers that compiled code, plain Python and users read by name.

An array of records is a NumPy structured array: `world.engines[g].clock`. A named tuple cannot hold a single record in
compiled code, so it holds an array of one, `kv_record`, and `record_attributes` makes the record itself an attribute:
`view.kv.free`, compiled and interpreted.
"""

import zlib
from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from typing import Any

import numpy as np

_SUFFIX = "_record"


class Records(np.ndarray):
    """An array of records; a field of it is the array of that field: `world.engines.clock`.

    As `np.recarray`, but for the time that plain Python takes: interpreted runs read records all the time.
    """

    def __getattr__(self, name: str) -> Any:
        if name in (self.dtype.names or ()):
            return self[name].view(np.ndarray)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}; its fields are {self.dtype.names}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in (self.dtype.names or ()):
            self[name] = value
        else:
            super().__setattr__(name, value)


def record_dtype(*fields: tuple[Any, ...]) -> np.dtype:
    """The dtype of records with these fields (name, type, and shape of arrays), aligned as in C.

    Raises:
        ValueError: for a name such as "mean" or "size", which is an attribute of every NumPy record.
    """
    for name, *_ in fields:
        if hasattr(np.void, name):
            raise ValueError(
                f"{name!r} cannot name a field, since NumPy records have a method or attribute of that name"
            )
    plain = np.dtype(list(fields), align=True)
    return np.dtype((_record_class(plain), plain))


def _record_class(plain: np.dtype) -> type[np.void]:
    """A class of records whose fields are attributes, found in this module by its name when it is unpickled."""
    name = f"Record_{zlib.crc32(repr(plain.descr).encode()):08x}"
    if name not in globals():
        attributes = {field: _attribute(field, k) for k, field in enumerate(field_names(plain))}
        globals()[name] = type(name, (np.void,), {"__slots__": (), "__module__": __name__, **attributes})
    found: type[np.void] = globals()[name]
    return found


def _attribute(name: str, place: int) -> property:
    def put(record: Any, value: Any) -> None:
        record[place] = value

    return property(itemgetter(place), put, doc=name)


def records(dtype: np.dtype, shape: int | tuple[int, ...] = 1) -> Records:
    """An array of zero records."""
    return np.zeros(shape, dtype).view(Records)


def words(array: np.ndarray) -> np.ndarray:
    """The memory of records as numbers of 8 bytes: NumPy copies records field by field. Other arrays as they are."""
    return array.view(np.int64, np.ndarray) if isinstance(array, Records) else array


def field_names(dtype: np.dtype) -> Sequence[str]:
    """The names of the fields of `dtype`."""
    names = dtype.names
    assert names is not None
    return names


def record_attributes(*names: str) -> None:
    """Let compiled code read the one record of the field `<name>_record` of a named tuple as its attribute `name`.

    For plain Python the class has a property of that name.
    """
    _tell_types()
    for name in names:
        _lower(name)


# numba is imported where it is needed, so that configurations and rows of results load without it.
@cache
def _tell_types() -> None:
    """Tell numba, once, the type of the attributes that `record_attributes` makes."""
    from numba import types
    from numba.core.typing.templates import AttributeTemplate
    from numba.extending import infer_getattr

    @infer_getattr
    class RecordAttributes(AttributeTemplate):  # type: ignore[misc]
        key = types.NamedTuple

        def generic_resolve(self, owner: Any, name: str) -> Any:
            field = name + _SUFFIX
            return owner.types[owner.fields.index(field)].dtype if field in owner.fields else None


def _lower(name: str) -> None:
    from numba import types
    from numba.extending import lower_getattr

    field = name + _SUFFIX

    @lower_getattr(types.NamedTuple, name)
    def lower(context: Any, builder: Any, owner: Any, value: Any) -> Any:
        if name in owner.fields:
            return builder.extract_value(value, owner.fields.index(name))
        place = owner.fields.index(field)
        array = context.make_array(owner.types[place])(context, builder, builder.extract_value(value, place))
        return array.data
