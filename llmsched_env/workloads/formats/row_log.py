"""Rows of a trace file that are left out: malformed ones, by an error or a warning, and failed requests."""

from __future__ import annotations

import warnings
from pathlib import Path

from llmsched_env.workloads.workload import Skipped

_LISTED = 1000
_SHOWN = 5


class CellError(ValueError):
    """A value that is not allowed; `column` names the cell of the row, "" the row as a whole."""

    def __init__(self, column: str, problem: str) -> None:
        super().__init__(f"{column} {problem}")
        self.column, self.problem = column, problem


class RowLog:
    """Collects the rows that are left out of a trace; without `skip_bad_rows` the first bad row is an error."""

    def __init__(self, skip_bad_rows: bool = False) -> None:
        self._skip = skip_bad_rows
        self._failed = self._bad = 0
        self._problems: list[str] = []

    def bad(self, path: Path, line: int | None, column: str, problem: str) -> None:
        """Report a bad row by its line and column; in a file that is one JSON object, by its key alone (in `column`).

        Raises:
            ValueError: bad rows are not skipped.
        """
        place = [str(path)] + ([] if line is None else [f"line {line}"])
        if column:
            place.append(column if line is None else f"column {column}")
        message = f"{', '.join(place)} {problem}"
        if not self._skip:
            raise ValueError(message)
        self._bad += 1
        if len(self._problems) < _LISTED:
            self._problems.append(message)

    def failed(self, rows: int = 1) -> None:
        """Count requests that failed when the trace was taken."""
        self._failed += rows

    def skipped(self) -> Skipped:
        """Everything that was left out; warns if bad rows were skipped."""
        if self._bad:
            first = "\n  ".join(self._problems[:_SHOWN])
            more = f"\n  and {self._bad - _SHOWN} more" if self._bad > _SHOWN else ""
            rows = f"{self._bad} bad row{'s' if self._bad > 1 else ''}"
            warnings.warn(f"skipped {rows}:\n  {first}{more}", UserWarning, stacklevel=3)
        return Skipped(self._failed, self._bad, tuple(self._problems))
