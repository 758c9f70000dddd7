"""ServeGen's clients (Y. Xiang et al., arXiv 2505.09999, https://github.com/alibaba/ServeGen): a folder or one client.

A client is a pair of files. `chunk-N-trace.csv`, without a header: window start (s), rate (requests/s), coefficient of
variation of gaps, "Gamma" or "Weibull" (empty if idle), shape, scale (s). `chunk-N-dataset.json`: window start
(s) to histograms of tokens, each a string with a Python dict {tokens: probability}. Requests are drawn from these laws.
"""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import numpy as np

from llmsched_env.files import read_object
from llmsched_env.workloads.arrivals import Gamma, Poisson, Renewal, Weibull, Windows
from llmsched_env.workloads.clients import Client, Lengths, ManyClients
from llmsched_env.workloads.dist import Histogram
from llmsched_env.workloads.formats.clock import Clock, clock_of
from llmsched_env.workloads.formats.row_log import CellError, RowLog
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat

_TRACE, _DATASET = "-trace.csv", "-dataset.json"
_WINDOW = 600.0  # seconds, if a file has a single window
_GAPS = {"Gamma", "Weibull", ""}
_MOST = 100_000  # windows per client


def _read(head: Head, log: RowLog) -> ManyClients:
    traces = sorted(head.path.glob(f"*{_TRACE}"), key=_number) if head.path.is_dir() else [_trace_of(head.path)]
    clients, ends = [], []
    found = {trace: _rows(trace, log) for trace in traces}
    starts = [start for rows in found.values() for start in rows]
    clock = clock_of(min(starts), max(starts), "s", head.time_unit)
    log.says(clock.words)
    for trace, rows in found.items():
        width, rates, gaps = _windows(trace, rows, clock)
        ends.append(width * len(rates))
        laws, epoch = _lengths(trace.with_name(trace.name.replace(_TRACE, _DATASET)), rates, width, clock)
        if any(rates) and laws:
            clients.append(Client(Windows(width, rates, gaps), float(np.mean(rates)), laws, epoch))
    if not clients:
        raise ValueError(f"{head.path} must hold at least one client that is not idle, got none")
    return ManyClients(tuple(clients), max(ends))


def _rows(path: Path, log: RowLog) -> dict[float, tuple[float, Renewal]]:
    """Rate and process of a client's windows by their recorded starts."""
    found: dict[float, tuple[float, Renewal]] = {}
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                start, rate, process = _window([cell.strip() for cell in text.split(",")])
                if found and start <= max(found):
                    raise CellError("1", f"must be > the window start before it ({max(found):g} s), got {start:g}")
            except CellError as error:
                log.bad(path, line, error.column, error.problem)
                continue
            found[start] = rate, process
    if not found:
        raise ValueError(f"{path} must hold at least one window, got none")
    return found


def _windows(
    path: Path, rows: dict[float, tuple[float, Renewal]], clock: Clock
) -> tuple[float, list[float], list[Renewal]]:
    """Width of a client's windows, and rate and process in each from time 0 on; missing windows are idle."""
    found = {(start - clock.origin) / clock.per_second: own for start, own in rows.items()}
    width = float(np.min(np.diff([*found]))) if len(found) > 1 else _WINDOW
    if max(found) / width > _MOST:
        raise ValueError(f"{path}, column 1 must hold at most {_MOST} windows of {width:g} s, got {max(found):g}")
    places = {round(start / width): own for start, own in found.items()}
    uneven = [start for start in found if not math.isclose(start / width, round(start / width), abs_tol=1e-6)]
    if uneven:
        raise ValueError(f"{path}, column 1 must hold multiples of the windows' width ({width:g} s), got {uneven[0]:g}")
    windows = [places.get(k, (0.0, Poisson())) for k in range(max(places) + 1)]
    return width, [rate for rate, _ in windows], [process for _, process in windows]


def _window(cells: list[str]) -> tuple[float, float, Renewal]:
    if len(cells) != 6:
        raise CellError("", f"must have 6 cells (start, rate, cv, distribution, shape, scale), got {','.join(cells)!r}")
    start, rate, shape = (_non_negative(cells, c) for c in (0, 1, 4))
    if cells[3] not in _GAPS:
        raise CellError("4", f"must be Gamma, Weibull or empty, got {cells[3]!r}")
    if not rate or not cells[3]:
        return start, 0.0, Poisson()
    try:
        return start, rate, Gamma(shape**-0.5) if cells[3] == "Gamma" else Weibull(shape)
    except (ValueError, ZeroDivisionError):
        raise CellError("5", f"must be a shape > 0 of moderate size, got {cells[4]!r}") from None


def _non_negative(cells: list[str], c: int) -> float:
    try:
        value = float(cells[c])
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise CellError(str(c + 1), f"must be a finite number >= 0, got {cells[c]!r}")
    return value


def _lengths(path: Path, rates: list[float], width: float, clock: Clock) -> tuple[list[Lengths], float]:
    """Laws of lengths in windows of equal width from time 0 on, and this width.

    A window without histograms takes those of the nearest one, because requests at its edge need some.
    """
    windows = read_object(path)
    starts: list[float] = []
    filled: dict[float, tuple[Histogram, Histogram]] = {}
    for key, row in windows.items():
        try:
            start = (float(key) - clock.origin) / clock.per_second
            prompt, output = _histogram(row, "input_tokens"), _histogram(row, "output_tokens")
        except CellError as error:
            raise ValueError(f"{path}, window {key}, {error.column} {error.problem}") from None
        except ValueError:
            raise ValueError(f"{path}, window {key!r} must be a start in seconds") from None
        starts.append(start)
        if prompt is not None and output is not None:
            filled[start] = prompt, output
    if not filled:
        return [], math.inf
    epoch = float(np.min(np.diff(sorted(starts)))) if len(starts) > 1 else math.inf
    if len(rates) * width / epoch > _MOST:
        raise ValueError(f"{path} must hold windows of a width such as 21600 s, got {epoch:g} s")
    edges = np.arange(len(rates)) * width
    epochs = np.floor(edges / epoch).astype(int)
    laws = []
    for k in range(int(epochs[-1]) + 1):
        nearest = min(filled, key=lambda start: abs(start - k * epoch) if math.isfinite(epoch) else 0.0)
        laws.append(Lengths(*filled[nearest], float(np.sum(np.array(rates)[epochs == k]))))
    return laws, epoch


def _histogram(row: dict[str, Any], key: str) -> Histogram | None:
    try:
        counts = ast.literal_eval(row[key]) if isinstance(row[key], str) else row[key]
        items = [(int(tokens), float(share)) for tokens, share in counts.items() if int(tokens) >= 1]
        return Histogram(*zip(*items, strict=True)) if items else None
    except (KeyError, ValueError, SyntaxError, AttributeError, TypeError, OverflowError):
        got = str(row.get(key))[:80] if isinstance(row, dict) else row
        raise CellError(key, f"must be a dict of tokens to probabilities, got {got!r}") from None


def _trace_of(path: Path) -> Path:
    trace = path.with_name(path.name.replace(_DATASET, _TRACE))
    dataset = trace.with_name(trace.name.replace(_TRACE, _DATASET))
    for needed in (trace, dataset):
        if not needed.is_file() or trace == dataset:
            raise ValueError(f"{path}: a client of ServeGen is a pair NAME{_TRACE} and NAME{_DATASET}; one is missing")
    return trace


def _number(path: Path) -> tuple[int, str]:
    digits = "".join(c for c in path.name if c.isdigit())
    return int(digits or 0), path.name


def _matches(head: Head) -> bool:
    if head.path.is_dir():
        return next(head.path.glob(f"*{_TRACE}"), None) is not None
    if head.document is not None:
        return bool(head.document) and all(
            isinstance(window, dict) and "input_tokens" in window for window in head.document.values()
        )
    return len(head.titles) == 6 and head.titles[3] in _GAPS and head.titles[0].replace(".", "", 1).isdigit()


SERVEGEN = TraceFormat(
    "ServeGen",
    f"a folder of NAME{_TRACE} and NAME{_DATASET}, or one of these files",
    _read,
    _matches,
    takes=("time_unit",),
)
