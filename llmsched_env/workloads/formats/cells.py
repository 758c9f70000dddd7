"""One cell of text to one value, exactly; raises `ValueError` with what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from llmsched_env.simulator.request_table import COLUMNS, Column
from llmsched_env.workloads.formats import kernel

_STAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf|nan", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cell:
    """How the cells of one column of a CSV file are read.

    Attributes:
        kind: one of the kinds of `kernel`.
        column: bounds and default of the values; None for what has none (skipped cells, time stamps, labels).
        optional: whether an empty cell stands for the default.
    """

    kind: int
    column: Column | None = None
    optional: bool = False

    @property
    def parse(self) -> Callable[[str], float]:
        """The reader of one cell."""
        return {
            kernel.SKIP: lambda cell: 0,
            kernel.INTEGER: self._number,
            kernel.NUMBER: self._number,
            kernel.STAMP: nanoseconds,
            kernel.LABEL: label,
        }[self.kind]

    def _number(self, cell: str) -> float:
        if not cell and self.optional:
            return self.column.default
        pattern, convert = (_INTEGER, int) if self.kind == kernel.INTEGER else (_NUMBER, float)
        if not pattern.fullmatch(cell):
            raise ValueError(self.column.allowed)
        return convert(cell)


SKIPPED = Cell(kernel.SKIP)
TIME_STAMP = Cell(kernel.STAMP)
LABEL = Cell(kernel.LABEL)


def cell_of(column: str, optional: bool = False, **changes: float | str) -> Cell:
    """Cells that hold a column of `RequestTable`; `changes` to its bounds."""
    kind = kernel.INTEGER if isinstance(COLUMNS[column].dtype(0).item(), int) else kernel.NUMBER
    return Cell(kind, COLUMNS[column]._replace(**changes), optional)


def nanoseconds(cell: str) -> int:
    """Parse a time stamp without loss; fractions of a second may have up to nine digits, or be absent."""
    match = _STAMP.fullmatch(cell)
    if not match:
        raise ValueError("a time like 2023-11-16 18:17:03.9799600 (optionally with an offset such as +00:00)")
    whole, fraction, offset = match.groups()
    return _epoch_seconds(whole, offset) * 10**9 + int((fraction or "").ljust(9, "0"))


def label(cell: str) -> int:
    """A 64-bit hash of the text (FNV-1a), the same as the kernel's."""
    digest = int(kernel.FNV_BASIS)
    for byte in cell.encode():
        digest = (digest ^ byte) * int(kernel.FNV_PRIME) % 2**64
    return digest - 2**64 if digest >= 2**63 else digest


@lru_cache(maxsize=4)
def _epoch_seconds(whole: str, offset: str | None) -> int:
    try:
        return int(datetime.fromisoformat(whole + (offset or "+00:00").replace("Z", "+00:00")).timestamp())
    except ValueError:
        raise ValueError("an existing date and time") from None
