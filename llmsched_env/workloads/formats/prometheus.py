"""Histograms of lengths in the metrics of a server (Prometheus text), such as vLLM's `/metrics`.

The lengths of a workload are drawn from the histograms of prompt and output tokens, independently, and within each
bucket such that the mean is the recorded one. Counters have no times, so arrivals are Poisson at one request per second
until the workload is scaled. Several models in one file are runs.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from llmsched_env.tables.request_table import RequestTable
from llmsched_env.validation import shown
from llmsched_env.workloads.arrivals import Poisson
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat
from llmsched_env.workloads.sources import TimelessRequests

_NAMES = (  # histograms of prompt and of output tokens
    ("vllm:request_prompt_tokens", "vllm:request_generation_tokens"),
    ("sglang:prompt_tokens_histogram", "sglang:generation_tokens_histogram"),
    ("tgi_request_input_length", "tgi_request_generated_tokens"),
)
_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_MOST = 10_000  # requests
_MOST_TOKENS = 10**9
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass
class _Histogram:
    """Numbers of requests up to each bound, and the sum of their tokens."""

    upto: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    total: float = 0.0

    def quantile(self, u: np.ndarray) -> np.ndarray:
        """Tokens i8[n] at the quantiles f8[n]."""
        bounds = np.array(sorted(self.upto))
        counts = np.diff([0.0, *(self.upto[bound] for bound in bounds)])
        low, high = np.array([0.0, *bounds[:-1]]), bounds.copy()
        high[-1] = 2 * low[-1] + 1 if math.isinf(high[-1]) else high[-1]
        ends = np.cumsum(counts) / counts.sum()
        bucket = np.minimum(np.searchsorted(ends, u), len(ends) - 1)
        share = counts[bucket] / counts.sum()
        within = np.clip((u - (ends[bucket] - share)) / np.where(share > 0, share, 1.0), 0.0, 1.0)
        width = high - low
        weights, target = counts / counts.sum(), self.total / counts.sum()
        least, most = 1 / 64, 64.0  # powers; the mean of u^p is 1 / (p + 1)
        for _ in range(50):
            power = math.sqrt(least * most)
            least, most = (power, most) if weights @ (low + width / (power + 1)) > target else (least, power)
        tokens = np.ceil(low[bucket] + width[bucket] * within**power)
        return np.asarray(np.clip(tokens, 1, _MOST_TOKENS), np.int64)


def _runs(head: Head) -> list[tuple[dict[str, _Histogram], str]]:
    """The histograms of each model."""
    found = _histograms(head)
    names = next((pair for pair in _NAMES if any(own[0] in pair for own in found)), _NAMES[0])
    models = dict.fromkeys(model for name, model in found if name == names[0] and (names[1], model) in found)
    if not models:
        lacks = [name for name in names if not any(own[0] == name for own in found)] or [" with ".join(names)]
        raise ValueError(
            f"{head.path} lacks the histogram {' and '.join(lacks)}, from which lengths would be drawn; save the whole "
            "page, for instance `curl SERVER/metrics > metrics.txt`"
        )
    return [({"prompt": found[names[0], own], "output": found[names[1], own]}, own) for own in models]


def _histograms(head: Head) -> dict[tuple[str, str], _Histogram]:
    """Histograms of lengths by name and model; engines of one model are added up."""
    wanted = {name for pair in _NAMES for name in pair}
    found: dict[tuple[str, str], _Histogram] = defaultdict(_Histogram)
    seen = set()
    with head.path.open(encoding="utf-8-sig", errors="replace") as file:
        for line, text in enumerate(file, 1):
            name, _, rest = text.strip().partition("{")
            base, _, kind = name.split(" ")[0].rpartition("_")
            if base not in wanted or kind not in ("bucket", "sum"):
                continue
            match = _SAMPLE.fullmatch(text.strip())
            labels = dict(_LABEL.findall(match[2] or "")) if match else {}
            try:
                if match is None:
                    raise ValueError
                value, bound = float(match[3]), float(labels["le"]) if kind == "bucket" else 0.0
            except (KeyError, ValueError):
                raise ValueError(
                    f"{head.path}, line {line} must be a sample of a histogram, got {shown(text)}"
                ) from None
            if not (0 <= value < math.inf and bound >= 0):
                raise ValueError(f"{head.path}, line {line} must have a number >= 0, got {shown(text)}")
            if (key := (name, rest.rpartition("}")[0])) in seen:
                raise ValueError(f"{head.path}, line {line}: the file must hold one scrape, got {name} again")
            seen.add(key)
            own = found[base, str(labels.get("model_name", labels.get("model", "")))]
            if kind == "bucket":
                own.upto[bound] += value
            else:
                own.total += value
    return dict(found)


def _read(head: Head, log: RowLog) -> TimelessRequests:
    assert head.document is not None  # as `TraceFormat.chosen` says
    counts = []
    for what, own in head.document.items():
        upto = [own.upto[bound] for bound in sorted(own.upto)]
        if any(np.diff(upto) < 0):
            raise ValueError(f"{head.path}: the histogram of {what} tokens must not decrease")
        if not upto or not upto[-1] >= 1:
            raise ValueError(
                f"{head.path}: the histogram of {what} tokens must count at least one request, got {upto[-1:]}"
            )
        counts.append(upto[-1])
    n = int(min(*counts, _MOST))
    u = (np.random.default_rng(0).permutation(n) + 0.5) / n
    prompt, output = head.document["prompt"].quantile(u), head.document["output"].quantile((u * n * _GOLDEN) % 1)
    log.says(f"lengths by the histograms of {counts[0]:g} requests, independent; no times")
    return TimelessRequests(RequestTable.from_columns(np.zeros(n), prompt, output), 1.0, Poisson())


def _matches(head: Head) -> bool:
    first = head.titles[0] if head.titles else ""
    return first.startswith(("# HELP ", "# TYPE ", "# EOF")) or any(first.startswith(pair) for pair in _NAMES)


PROMETHEUS = TraceFormat(
    "Prometheus metrics",
    "metrics of a server in Prometheus' text format, with histograms of lengths",
    _read,
    _matches,
    runs=_runs,
)
