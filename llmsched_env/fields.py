"""Named fields: records of numbers that compiled code, plain Python and users read by name.

An array of records is a NumPy structured array: `world.engines[g].clock`. A named tuple cannot hold a single record in
compiled code, so it holds an array of one, `kv_record`, and `record_attributes` makes the record itself an attribute:
`view.kv.free`, compiled and interpreted.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, lower_getattr

_SUFFIX = "_record"


def record_dtype(*fields: tuple[Any, ...]) -> np.dtype:
    """The dtype of records with these fields (name, type, and shape of arrays), aligned as in C.

    Raises:
        ValueError: for a name such as "mean" or "size", which is an attribute of every NumPy record.
    """
    for name, *_ in fields:
        if hasattr(np.record, name):
            raise ValueError(
                f"{name!r} cannot name a field, since NumPy records have a method or attribute of that name"
            )
    return np.dtype((np.record, np.dtype(list(fields), align=True)))


def records(dtype: np.dtype, shape: int | tuple[int, ...] = 1) -> np.recarray:
    """An array of zero records; a field of it is the array of that field."""
    return np.zeros(shape, dtype).view(np.recarray)


def field_names(dtype: np.dtype) -> Sequence[str]:
    """The names of the fields of `dtype`."""
    names = dtype.names
    assert names is not None
    return names


def record_attributes(*names: str) -> None:
    """Let compiled code read the one record of the field `<name>_record` of a named tuple as its attribute `name`.

    For plain Python the class has a property of that name.
    """
    for name in names:
        _lower(name)


def _lower(name: str) -> None:
    field = name + _SUFFIX

    @lower_getattr(types.NamedTuple, name)
    def lower(context: Any, builder: Any, owner: Any, value: Any) -> Any:
        if name in owner.fields:
            return builder.extract_value(value, owner.fields.index(name))
        place = owner.fields.index(field)
        array = context.make_array(owner.types[place])(context, builder, builder.extract_value(value, place))
        return array.data


@infer_getattr
class _RecordAttributes(AttributeTemplate):  # type: ignore[misc]
    """Tells numba the type of the attributes that `record_attributes` makes."""

    key = types.NamedTuple

    def generic_resolve(self, owner: Any, name: str) -> Any:
        field = name + _SUFFIX
        return owner.types[owner.fields.index(field)].dtype if field in owner.fields else None
