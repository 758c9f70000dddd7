"""Theorem 2 of arXiv 2504.07347: the stability limit of one engine under work-conserving schedulers."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

import llmsched_env as ls
from experiments.check import Check, agrees, close, in_range
from experiments.experiment import Experiment, Outcome, Picture
from experiments.paper import FOUR, PER_MS, engine, run_seeds
from llmsched_env import theory
from llmsched_env.evaluation.rendering import COLORS, line_style, panel_grid, styled, svg_text
from llmsched_env.intervals import mean_interval
from llmsched_env.results.stability import backlog_slope

BUDGET, PROMPT, OUTPUT = 512, 100, 100
HORIZON, SEEDS = 600.0, 40  # s
PUBLISHED = {0.9: "0.0078 ± 0.0143", 1.1: "0.3383 ± 0.0464", 1.2: "0.6683 ± 0.0362"}
LARGEST_ERROR = 0.02  # tokens/ms
ENGINE = engine(BUDGET)


def workload(rate: float) -> ls.Workload:
    """Poisson arrivals of (100, 100) tokens."""
    return ls.Workload.poisson(rate, PROMPT, OUTPUT, HORIZON)


def run() -> Outcome:
    """Backlogs at 0.9, 1.1 and 1.2 of the critical rate."""
    critical = theory.critical_rate(ENGINE, workload(1.0))
    checks = [
        close(
            f"Critical rate λ* of ({PROMPT}, {OUTPUT}) tokens (requests/s)",
            critical,
            1e-12,
            theory=512 / 0.15316 / 200,
            note="library function against the formula written out",
        )
    ]
    runs = {}
    for name in ("Sarathi", "Orca"):
        for load in PUBLISHED:
            scheduler = FOUR[name](token_budget=BUDGET)
            runs[name, load] = run_seeds(scheduler, workload(load * critical), ENGINE, SEEDS, HORIZON)
            checks.append(_growth_check(name, load, runs[name, load]))
        checks.append(_path_check(name, [result for load in PUBLISHED for result in runs[name, load]]))
    return Outcome(tuple(checks), (Picture(_CAPTION, _draw(runs)),))


def _growth_check(name: str, load: float, results: list[ls.Result]) -> Check:
    return agrees(
        f"{name} at {load:g} λ*: growth of the backlog (tokens/ms)",
        slopes(results),
        max(0.0, load - 1) * theory.token_rate(ENGINE) * PER_MS,
        LARGEST_ERROR,
        published=PUBLISHED[load] if name == "Sarathi" else None,
    )


def _path_check(name: str, results: list[ls.Result]) -> Check:
    return in_range(
        f"{name}: largest distance of the backlog from what arrived less b_max/t_bmax a second (tokens)",
        [max(deviation_while_full(result) for result in results)],
        0,
        BUDGET + 1e-6,  # rounding
        theory=f"≤ {BUDGET}",
        note=f"pathwise, over the longest stretch of full batches in each of {len(results)} runs",
    )


def slopes(results: list[ls.Result]) -> list[float]:
    """Growth of the backlog over the second half of each run, in tokens/ms."""
    return [backlog_slope(result, HORIZON / 2, HORIZON) * PER_MS for result in results]


def deviation_while_full(result: ls.Result) -> float:
    """Largest distance of the backlog from arrivals minus b_max/t_{b_max} a second, while all batches are full."""
    batches, rows = result.batches, result.requests
    first, last = _longest_run(batches.prefill_tokens + batches.decode_tokens == BUDGET)
    times = np.linspace(batches.start[first], batches.start[last], 1000)
    arrived = (PROMPT + OUTPUT) * np.searchsorted(rows.arrival, times, "right")
    expected = arrived - theory.token_rate(ENGINE) * times
    actual = result.backlog(times)
    return float(np.abs((actual - actual[0]) - (expected - expected[0])).max())


def _longest_run(flags: np.ndarray) -> tuple[int, int]:
    """First and one past the last of the longest run of True; the very last flag counts as False."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags[:-1], [False]])))
    longest = int(np.argmax(edges[1::2] - edges[::2]))
    return int(edges[2 * longest]), int(edges[2 * longest + 1])


def _draw(runs: dict[tuple[str, float], list[ls.Result]]) -> str:
    with styled():
        figure, (left, right) = panel_grid(2, columns=2, height=3.4)
        _draw_paths(left, runs)
        _draw_slopes(right, runs)
        return svg_text(figure)


def _draw_paths(axes: Axes, runs: dict[tuple[str, float], list[ls.Result]]) -> None:
    times = np.linspace(0, HORIZON, 300)
    for i, load in enumerate(PUBLISHED):
        backlogs = np.array([result.backlog(times) for result in runs["Sarathi", load]]) / 1e3
        style = line_style(i)
        axes.fill_between(times, *np.quantile(backlogs, [0.1, 0.9], axis=0), color=style["color"], alpha=0.18, lw=0)
        axes.plot(times, backlogs.mean(axis=0), label=f"{load:g} λ*", **style)
        axes.plot(times, max(0.0, load - 1) * theory.token_rate(ENGINE) * times / 1e3, color="#666666", lw=0.8)
    axes.set(title="Backlog under Sarathi", xlabel="Time (s)", ylabel="Backlog (thousand tokens)", xlim=(0, HORIZON))
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")


def _draw_slopes(axes: Axes, runs: dict[tuple[str, float], list[ls.Result]]) -> None:
    loads = np.linspace(0.85, 1.25, 81)
    axes.plot(
        loads, np.maximum(0, loads - 1) * theory.token_rate(ENGINE) * PER_MS, color="#666666", label="theory", lw=1
    )
    published = [[float(part) for part in text.split(" ± ")] for text in PUBLISHED.values()]
    rows = [("published", np.array(published).T, "X", COLORS[6])]
    for marker, color, name in zip("os", COLORS, ("Sarathi", "Orca"), strict=False):
        intervals = [mean_interval(slopes(runs[name, load])) for load in PUBLISHED]
        rows.append((f"{name}, ours", np.array(intervals).T, marker, color))
    for offset, (label, (mean, half_width), marker, color) in zip((-0.006, 0, 0.006), rows, strict=True):
        axes.errorbar(
            np.array(list(PUBLISHED)) + offset,
            mean,
            half_width,
            fmt=marker,
            ms=4.5,
            color=color,
            capsize=2.5,
            label=label,
        )
    axes.set(title="Growth of the backlog", xlabel="Load λ/λ*", ylabel="Growth (tokens/ms)")
    axes.legend(loc="upper left")


_CAPTION = (
    f"Left: mean over {SEEDS} seeds, the band holds 80 % of them, thin lines are the growth that theory gives. Right: "
    "means with 95 % intervals, set slightly apart."
)

EXPERIMENT = Experiment(
    "theorem2",
    "Theorem 2: the stability limit of one engine",
    "Requests of (100, 100) tokens arrive as a Poisson process; b_max = 512. No scheduler is stable above λ* = b_max / "
    "(t_bmax · 200 tokens), and every work-conserving one is below it; above, the backlog grows by what arrives beyond "
    "b_max/t_bmax tokens per second. Growth is the slope of the backlog over the second half of 600 s.",
    run,
)
