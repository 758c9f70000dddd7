"""What a workload read from a file leaves out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Skipped:
    """Rows of a trace file that are not among the requests.

    Attributes:
        failed: requests that the trace marks as failed, such as rows of zero tokens in BurstGPT.
        bad: malformed rows that were skipped because the caller asked for it.
        problems: what was wrong with the first thousand bad rows: file, line, column, value, what was expected.
    """

    failed: int = 0
    bad: int = 0
    problems: tuple[str, ...] = ()
