"""What reading a trace file brings beside its requests: the rows that are left out, and what was recognised."""

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
    """Collects the rows that are left out of a trace; without `skip_bad_rows` the first bad row is an error.

    Attributes:
        words: what was recognised, such as "seconds".
        users: requests that the benchmark kept in the system, if it was a closed loop; else None.
    """

    def __init__(self, skip_bad_rows: bool = False) -> None:
        self.words: list[str] = []
        self.users: int | None = None
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

    def says(self, words: str) -> None:
        """Add to what was recognised."""
        self.words.append(words)

    def closed_loop(self, users: int) -> None:
        """Say that the requests were measured in a closed loop."""
        self.users = users
        self.words.append(f"closed loop of {users}")

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
