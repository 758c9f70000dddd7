"""Per-request measurements of a serving run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from llmsched_env.results.records import Result
from llmsched_env.tables.request_table import COLUMNS
from llmsched_env.workloads.formats.json_reader import Row, number, read_lines, seconds, tokens
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_format import head_of
from llmsched_env.workloads.workload import Workload


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredRun:
    """The requests of a serving run in order of arrival, in arrays of equal length.

    Attributes:
        arrival: f8[n], seconds since the first.
        prompt_tokens: i8[n].
        output_tokens: i8[n].
        ttft: f8[n], seconds from arrival to the first token.
        e2el: f8[n], seconds from arrival to the last token.
        gaps: seconds between the tokens of each request, an array a request; None if they were not recorded.
    """

    arrival: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    ttft: np.ndarray
    e2el: np.ndarray
    gaps: tuple[np.ndarray, ...] | None = None

    @classmethod
    def from_result(cls, result: Result) -> Self:
        """A simulated run in the form of a measured one; all requests must have finished."""
        rows = result.requests
        return cls(
            arrival=rows.arrival,
            prompt_tokens=rows.prompt_tokens,
            output_tokens=rows.output_tokens,
            ttft=rows.first_token - rows.arrival,
            e2el=rows.finish - rows.arrival,
        )

    @property
    def workload(self) -> Workload:
        """The requests as a workload."""
        return Workload.from_arrays(self.arrival, self.prompt_tokens, self.output_tokens)

    def summary(self) -> dict[str, float]:
        """Mean TTFT, TPOT and E2E latency, and the time from the first arrival to the last token; in seconds."""
        decodes = self.output_tokens > 1
        tpot = (self.e2el - self.ttft)[decodes] / (self.output_tokens[decodes] - 1)
        return {
            "mean_ttft": float(self.ttft.mean()),
            "mean_tpot": float(tpot.mean()) if decodes.any() else 0.0,
            "mean_e2el": float(self.e2el.mean()),
            "duration": float(np.max(self.arrival + self.e2el)),
        }


def read_run(path: str | Path, skip_bad_rows: bool = False) -> MeasuredRun:
    """Read a serving run.

    JSON lines with `input_toks`, `output_toks`, `queued_ts`, `first_token_ts` and `last_token_ts` (s, one clock), or
    the result of `vllm bench serve --save-detailed` with `start_times`, `ttfts` and `itls`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither, or malformed; naming file, line, key, value and what is expected.
    """
    head, log = head_of(Path(path)), RowLog(skip_bad_rows)
    gaps: list[np.ndarray] | None = None
    if head.document is not None and "ttfts" in head.document:
        rows, gaps = _bench(head.path, head.document, log)
    elif head.row is not None and "first_token_ts" in head.row:
        rows = read_lines(head.path, log, _timed)
    else:
        expected = (
            "JSON lines with queued_ts, first_token_ts, last_token_ts, or a result of vllm bench serve with ttfts"
        )
        raise ValueError(f"{head.path} must be {expected}")
    log.skipped()
    order = sorted(range(len(rows)), key=lambda i: rows[i][0])
    arrival, prompt, output, ttft, e2el = np.array([rows[i] for i in order]).T
    return MeasuredRun(
        arrival=arrival - arrival[0],
        prompt_tokens=prompt.astype(int),
        output_tokens=output.astype(int),
        ttft=ttft,
        e2el=e2el,
        gaps=None if gaps is None else tuple(gaps[i] for i in order),
    )


def _timed(row: Row) -> tuple[float, ...]:
    queued, first, last = (seconds(row, key) for key in ("queued_ts", "first_token_ts", "last_token_ts"))
    if not queued < first <= last:
        raise CellError("first_token_ts", f"must be > queued_ts ({queued}) and <= last_token_ts ({last}), got {first}")
    return queued, tokens(row, "input_toks"), tokens(row, "output_toks"), first - queued, last - queued


def _bench(path: Path, result: dict[str, Any], log: RowLog) -> tuple[list[tuple[float, ...]], list[np.ndarray]]:
    """Rows of the requests, and the gaps between the tokens of each."""
    rows: list[tuple[float, ...]] = []
    all_gaps: list[np.ndarray] = []
    names = ("start_times", "input_lens", "output_lens", "ttfts", "itls")
    for name in names:
        if not isinstance(result.get(name), list) or len(result[name]) != len(result["ttfts"]):
            raise ValueError(f"{path}: {name} must be a list with one value per request, as in ttfts")
    for i, values in enumerate(zip(*(result[name] for name in names), strict=True)):
        row = dict(zip(names, values, strict=True))
        try:
            if row["output_lens"] == 0:
                log.failed()
                continue
            ttft = number(row, "ttfts", COLUMNS["timeout"])
            gaps = np.array([number({"itls": gap}, "itls", COLUMNS["arrival"]) for gap in row["itls"]], dtype=float)
            lengths = tokens(row, "input_lens"), tokens(row, "output_lens")
            rows.append((seconds(row, "start_times"), *lengths, ttft, ttft + float(gaps.sum())))
            all_gaps.append(gaps)
        except CellError as error:
            log.bad(path, None, f"{error.column}[{i}]", error.problem)
    if not rows:
        raise ValueError(f"{path} must hold at least one request that succeeded, got none")
    return rows, all_gaps
