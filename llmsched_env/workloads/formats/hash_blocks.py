"""Rows with `timestamp`, `input_length`, `output_length` and `hash_ids`: their time unit and their block size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmsched_env.workloads.formats.clock import WORDS, run_times, unix_unit
from llmsched_env.workloads.formats.json_reader import Row, block_ids, label, seconds, tokens
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_calls import TraceCall
from llmsched_env.workloads.formats.trace_format import Head

MOONCAKE_BLOCK = 512
_POWERS = [1 << k for k in range(30)]
_FASTEST_MS = 10.0  # mean gap of whole numbers from which on they can be milliseconds: 100 requests/s


def parse_row(row: Row) -> TraceCall:
    """The call of a row; its arrival is the recorded number."""
    lengths = tokens(row, "input_length"), tokens(row, "output_length")
    return TraceCall(seconds(row, "timestamp"), *lengths, label(row, "session_id"), blocks=block_ids(row, "hash_ids"))


def on_run_clock(head: Head, calls: Sequence[TraceCall], log: RowLog, unit: str | None = None) -> list[TraceCall]:
    """The calls with arrivals in seconds of the run.

    Args:
        head: with the unit that the caller says.
        calls: with arrivals as recorded.
        log: is told what was recognised.
        unit: the documented unit; None: it is to be recognised.

    Raises:
        ValueError: the unit cannot be recognised.
    """
    times = np.array([call.arrival for call in calls], float)
    unit = head.time_unit or unit or unix_unit(float(times.min())) or _unit(head, times)
    arrivals = run_times(times, log, unit, head.time_unit).tolist()
    return [call._replace(arrival=arrival) for call, arrival in zip(calls, arrivals, strict=True)]


def _unit(head: Head, times: np.ndarray) -> str:
    """Unit of times that count from the start of a trace: Mooncake's are whole milliseconds."""
    span = float(times.max() - times.min())
    gap = span / max(1, len(times) - 1)
    whole = bool(np.all(times == np.floor(times)))
    if span == 0 or (whole and gap >= _FASTEST_MS):
        return "ms"
    if not whole and gap < 1:  # more than 1000 requests/s otherwise
        return "s"
    why = f"gaps of {gap:g} on average" if whole else "fractions, which Mooncake's milliseconds have not"
    raise ValueError(
        f"{head.path}: the unit of timestamp cannot be recognised ({why}); say which of {', '.join(WORDS)} it is: "
        f"time_unit='ms' (--time-unit ms) or time_unit='s' (--time-unit s)"
    )


@dataclass(frozen=True, slots=True)
class _Lists:
    """Prompts and the lengths of their lists of ids, i8[n] each, of the rows that have ids."""

    prompt: np.ndarray
    ids: np.ndarray

    def fits(self, size: int) -> bool:
        """Whether every list has an id for each block of this size, the last of which may be shorter."""
        return bool(np.all(-(-self.prompt // size) == self.ids))

    def fits_full(self, size: int) -> bool:
        """Whether every list has an id for each full block of this size."""
        return bool(np.all(self.prompt // size == self.ids))

    def only_size(self) -> int | None:
        """The one size that fits all lists, None if there is none or several."""
        low = int(np.max(-(-self.prompt // self.ids)))
        more = self.ids > 1
        high = int(np.min(-(-self.prompt[more] // (self.ids[more] - 1)), initial=1 << 40))
        return low if low == high - 1 else None


def block_size(head: Head, calls: Sequence[TraceCall], log: RowLog, documented: int = MOONCAKE_BLOCK) -> int:
    """Tokens per block of the ids.

    It is the size that the caller says, or the documented one if no list is longer or, in Mooncake's files, shorter
    than it says, or the one size that explains the lengths of all lists, a power of two if there is one.

    Raises:
        ValueError: it cannot be recognised.
    """
    rows = [(call.prompt_tokens, len(call.blocks)) for call in calls if call.blocks]
    if not rows:
        return 1
    lists = _Lists(*np.array(rows, np.int64).T)
    size = head.block_tokens or _recognised(lists, documented)
    if size is None:
        prompt, ids = rows[0] if lists.fits(-(-rows[0][0] // rows[0][1])) else max(rows)
        raise ValueError(
            f"{head.path}: no size of blocks explains hash_ids, such as {ids} ids for {prompt} tokens; say how many "
            "tokens a block has: block_tokens=16 (--block-tokens 16)"
        )
    log.says(f"blocks of {size}")
    return size


def _recognised(lists: _Lists, documented: int) -> int | None:
    few = documented != MOONCAKE_BLOCK and bool(np.all(lists.ids <= -(-lists.prompt // documented)))
    if few or lists.fits(documented):
        return documented
    powers = [size for size in _POWERS if lists.fits(size)] or [size for size in _POWERS if lists.fits_full(size)]
    return powers[0] if powers else lists.only_size()
