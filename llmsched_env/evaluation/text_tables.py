"""Tables for a terminal of 100 columns: wide ones are split into parts, each with the names of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

WIDTH = 100
"""Terminal columns of everything that is printed."""


class TextColumn(NamedTuple):
    """A column of a table, its header and cells on one line or several.

    Attributes:
        header: its name, with its unit.
        cells: one for each row.
        justify: numbers stand to the right.
    """

    header: str
    cells: Sequence[str | Text]
    justify: Literal["left", "right"] = "right"

    @property
    def taken(self) -> int:
        """Terminal columns, with padding and border."""
        return 3 + max(len(line) for text in (self.header, *map(str, self.cells)) for line in text.split("\n"))


def fitting_tables(
    title: str, names: TextColumn, columns: Sequence[TextColumn], caption: str = "", longest_name: int = 34
) -> list[RenderableType]:
    """A table as what rich prints: its title, its parts, and its caption.

    Args:
        title: above it.
        names: the names of the rows; every part begins with them.
        columns: the others.
        caption: below it.
        longest_name: longer names of rows are folded.
    """
    first = min(longest_name + 3, names.taken)
    parts: list[RenderableType] = [Text(title, "bold")] if title else []
    for columns_of_part in _fitting(columns, WIDTH - 1 - first):
        table = Table()
        table.add_column(names.header, max_width=longest_name, overflow="fold")
        for column in columns_of_part:
            table.add_column(column.header, justify=column.justify, no_wrap=True)
        for cells in zip(names.cells, *(column.cells for column in columns_of_part), strict=True):
            table.add_row(*cells)
        parts.append(table)
    return [*parts, caption] if caption else parts


def _fitting(columns: Sequence[TextColumn], room: int) -> list[list[TextColumn]]:
    """The columns in their order, in as few parts of a width up to `room` as possible, of nearly equal widths."""
    fewest = len(_parts(columns, room))
    least = min(room, sum(column.taken for column in columns) // fewest)
    return next(parts for limit in range(least, room + 1) if len(parts := _parts(columns, limit)) <= fewest)


def _parts(columns: Sequence[TextColumn], limit: int) -> list[list[TextColumn]]:
    parts: list[list[TextColumn]] = [[]]
    for column in columns:
        if parts[-1] and sum(own.taken for own in parts[-1]) + column.taken > limit:
            parts.append([])
        parts[-1].append(column)
    return parts
