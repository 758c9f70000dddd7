"""What a trace format is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmsched_env.simulator.task_table import TaskTable
from llmsched_env.validation import did_you_mean
from llmsched_env.workloads.formats.head import Head
from llmsched_env.workloads.formats.rows import RowLog
from llmsched_env.workloads.sources import Source


@dataclass(frozen=True, slots=True)
class CsvHeader:
    """The header line of a CSV format.

    Attributes:
        required: titles that must be there.
        known: all titles that it may have.
        strict: whether a title that is not known is an error.
    """

    required: tuple[str, ...]
    known: tuple[str, ...]
    strict: bool = False

    def share(self, titles: list[str]) -> int:
        """How many of the titles it knows."""
        return len(set(titles) & set(self.known))

    def check(self, path: Path, titles: list[str]) -> None:
        """Raise `ValueError` for a header that lacks a title, has one twice, or a strict one that is not known."""
        needs = f"a header needs columns {','.join(self.required)}"
        missing = [title for title in self.required if title not in titles]
        if missing:
            raise ValueError(f"{path}, line 1 lacks column {', '.join(missing)}; {needs}")
        for title in titles:
            if self.strict and title not in self.known:
                raise ValueError(f"{path}, line 1 has unknown column {title!r}; {did_you_mean(title, self.known)}")
            if titles.count(title) > 1:
                raise ValueError(
                    f"{path}, line 1 must name each column once, got {title!r} {titles.count(title)} times"
                )


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """A format of files or folders, recognised by content: by a test of how it begins, or by a CSV header.

    Attributes:
        name: what messages call it.
        looks: by what a file of it is known, for messages.
        read: function (head, log) -> the requests.
        matches: function of how a file begins -> whether it has this format; None for a CSV with a header.
        header: the header of a CSV.
        read_tasks: function (head, log) -> the tasks of its sessions; None where every request is on its own.
    """

    name: str
    looks: str
    read: Callable[[Head, RowLog], Source]
    matches: Callable[[Head], bool] | None = None
    header: CsvHeader | None = None
    read_tasks: Callable[[Head, RowLog], TaskTable] | None = None
