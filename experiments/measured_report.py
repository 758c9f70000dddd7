"""Measured against simulated: a table, distributions, and the engine over time: `llmsched measured`.

The simulation is run twice: with the batch times of the GPU profile as shipped, and with all of them multiplied by one
factor, which is fitted on the first third of the requests.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.measured_run import (
    ServingRun,
    latencies,
    scheduler_of,
    summary,
)
from llmsched_env.calibration import MeasuredRun
from llmsched_env.evaluation.rendering import (
    line_style,
    panel_grid,
    rich_text,
    shared_legend,
    styled,
    svg_source,
    svg_text,
    write_page,
)
from llmsched_env.evaluation.text_tables import TextColumn, fitting_tables
from llmsched_env.files import write_json, write_text
from llmsched_env.results.records import Result

_TITLES = {"ttft": "Time to first token (s)", "tpot": "Time per output token (ms)", "e2el": "E2E latency (s)"}
_FACTORS = {"tpot": 1e3}


def compare(run: ServingRun, results: dict[str, Result]) -> dict[str, dict[str, float]]:
    """Every metric in s, measured and simulated: [metric]["measured" or name of the result]."""
    numbers = {"measured": summary(run.requests)}
    for name, result in results.items():
        numbers[name] = summary(MeasuredRun.from_result(result))
    return {metric: {name: row[metric] for name, row in numbers.items()} for metric in numbers["measured"]}


def distributions(run: ServingRun, results: dict[str, Result]) -> str:
    """CDFs of TTFT, TPOT and E2E latency, as SVG text."""
    sources = {"measured": run.requests, **{name: MeasuredRun.from_result(result) for name, result in results.items()}}
    with styled():
        figure, panels = panel_grid(len(_TITLES), columns=3)
        for axes, (metric, title) in zip(panels, _TITLES.items(), strict=True):
            for k, (name, timed) in enumerate(sources.items()):
                values = latencies(timed)[metric]
                values = np.sort(values[~np.isnan(values)]) * _FACTORS.get(metric, 1.0)
                axes.step(
                    values, np.arange(1, len(values) + 1) / len(values), where="post", label=name, **line_style(k)
                )
            axes.set(xlabel=title, ylabel="Share of requests", ylim=(0, 1), xlim=(0, None))
        shared_legend(figure, panels[0])
        return svg_text(figure)


def over_time(run: ServingRun, results: dict[str, Result]) -> str:
    """Running and waiting requests and KV usage over time, as SVG text."""
    panels_of = {"running": "Running requests", "waiting": "Waiting requests", "kv_cache_pct": "KV cache in use (%)"}
    with styled():
        figure, panels = panel_grid(len(panels_of), columns=3)
        for axes, (column, title) in zip(panels, panels_of.items(), strict=True):
            if run.seconds is not None:
                axes.plot(run.seconds["t"], run.seconds[column], label="measured", **line_style(0))
            for k, (name, result) in enumerate(results.items(), 1):
                batches = result.batches
                series = {
                    "running": batches.num_running,
                    "waiting": batches.num_waiting,
                    "kv_cache_pct": 100 * batches.kv_blocks_used / result.engine.kv_blocks,
                }[column]
                axes.plot(batches.start, series, label=name, alpha=0.8, **{**line_style(k), "linewidth": 1})
            axes.set(xlabel="Time (s)", ylabel=title, xlim=(0, None), ylim=(0, None))
        shared_legend(figure, panels[0])
        return svg_text(figure)


def report(run: ServingRun, profile: str, factor: float, results: dict[str, Result], out: Path) -> Path:
    """Write comparison.json, the pictures and report.html to `out`; returns the page."""
    numbers = compare(run, results)
    facts = {"run": run.name, "profile": profile, "time factor": factor, "requests": len(run.requests.arrival)}
    write_json(out / "comparison.json", {**facts, "seconds": numbers}, indent=1)
    pictures = {"Distributions over requests": distributions(run, results), "Over time": over_time(run, results)}
    for file, svg in zip(("distributions.svg", "over_time.svg"), pictures.values(), strict=True):
        write_text(out / file, svg)
    counts = {
        name: [int(r.requests.preemptions.sum()), int(r.requests.recomputed.sum()), int(r.requests.prefix_hit.sum())]
        for name, r in results.items()
    }
    return write_page(
        out / "report.html",
        "measured.html.j2",
        package="experiments",
        title=f"{run.name}: measured and simulated",
        lead=f"{len(run.requests.arrival)} requests; {profile} as shipped, and with batch times times {factor:.3f}.",
        names=list(next(iter(numbers.values()))),
        rows=table_rows(numbers),
        counts=counts,
        engine=str(results["as shipped"].engine),
        scheduler=str(scheduler_of(run)),
        pictures=[(caption, svg_source(svg)) for caption, svg in pictures.items()],
    )


def table_rows(numbers: dict[str, dict[str, float]]) -> list[list[str]]:
    """Rows of text: metric, measured value, and each simulated value with its deviation."""
    rows = []
    for metric, values in numbers.items():
        scale, unit = (1e3, "ms") if "tpot" in metric else (1.0, "s")
        measured = values["measured"]
        cells = [f"{scale * v:.2f} ({100 * (v / measured - 1):+.1f} %)" for n, v in values.items() if n != "measured"]
        rows.append([f"{metric} ({unit})", f"{scale * measured:.2f}", *cells])
    return rows


def text_table(numbers: dict[str, dict[str, float]], title: str, color: bool = False) -> str:
    """The numbers of `compare` as a text table."""
    header, rows = ("metric", *next(iter(numbers.values()))), table_rows(numbers)
    names, *columns = (TextColumn(name, [row[k] for row in rows]) for k, name in enumerate(header))
    return rich_text(*fitting_tables(title, names, columns), color=color)
