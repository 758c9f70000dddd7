"""Per-request measurements of a serving run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from llmsched_env.results.records import Result
from llmsched_env.workloads.formats import recognised
from llmsched_env.workloads.formats.row_log import RowLog
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
    the result of a benchmark: `vllm bench serve --save-detailed`, SGLang's `bench_serving --output-details`, GuideLLM,
    AIPerf, inference-perf, or the log of LiteLLM's proxy. Start times that a closed loop did not record follow from
    how long its requests took.

    Args:
        path: the file; "FILE#2" is the second run in a file of several.
        skip_bad_rows: leave out malformed rows, with a warning.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of these, malformed, or lacks times of tokens; naming file, line, key, value and what is
            expected.
    """
    head, log = head_of(path), RowLog(skip_bad_rows)
    trace_format = recognised(head)
    if trace_format.read_calls is None:
        raise ValueError(
            f"{head.path} must be a serving run with times of tokens, such as a result of vllm bench serve with ttfts, "
            f"or JSON lines with queued_ts, first_token_ts, last_token_ts; it is {trace_format.name}"
        )
    calls = trace_format.read_calls(trace_format.chosen(head), log)
    log.skipped()
    if any(math.isnan(call.ttft) or math.isnan(call.e2el) for call in calls):
        raise ValueError(f"{head.path} must hold the time of the first token of each request; measure with streaming")
    calls.sort(key=lambda call: call.start)
    gaps = [call.gaps for call in calls if call.gaps is not None]
    return MeasuredRun(
        arrival=np.array([call.start - calls[0].start for call in calls]),
        prompt_tokens=np.array([call.prompt_tokens for call in calls]),
        output_tokens=np.array([call.output_tokens for call in calls]),
        ttft=np.array([call.ttft for call in calls]),
        e2el=np.array([call.e2el for call in calls]),
        gaps=tuple(gaps) if len(gaps) == len(calls) else None,
    )
