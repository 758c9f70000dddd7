"""Measured against simulated: a table, distributions, and the engine over time: `llmsched measured`.

The simulation is run three times: with the batch times of the GPU profile; with all of them multiplied by
one factor, which is fitted on the first third of the requests; and calibrated on the whole run, as `llmsched calibrate`
does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.measured_run import latencies
from experiments.measured_simulation import Comparison, Simulation, scheduler_of
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

_TITLES = {"ttft": "Time to first token (s)", "tpot": "Time per output token (ms)", "e2el": "E2E latency (s)"}
_FACTORS = {"tpot": 1e3}
_PANELS = {"running": "Running requests", "waiting": "Waiting requests", "kv_cache_pct": "KV cache in use (%)"}


def distributions(comparison: Comparison) -> str:
    """CDFs of TTFT, TPOT and E2E latency, as SVG text."""
    sources = {"measured": comparison.run.requests}
    sources |= {name: simulation.requests for name, simulation in comparison.simulations.items()}
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


def over_time(comparison: Comparison) -> str:
    """Running and waiting requests and KV usage over time, summed over engines, as SVG text."""
    seconds = comparison.run.seconds
    with styled():
        figure, panels = panel_grid(len(_PANELS), columns=3)
        for axes, (column, title) in zip(panels, _PANELS.items(), strict=True):
            if seconds is not None:
                axes.plot(seconds["t"], seconds[column], label="measured", **line_style(0))
            for k, (name, simulation) in enumerate(comparison.simulations.items(), 1):
                times, values = _over_time(simulation, column)
                axes.plot(times, values, label=name, alpha=0.8, **{**line_style(k), "linewidth": 1})
            axes.set(xlabel="Time (s)", ylabel=title, xlim=(0, None), ylim=(0, None))
        shared_legend(figure, panels[0])
        return svg_text(figure)


def _over_time(simulation: Simulation, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Times of the starts of batches, and the value from then on: a sum over engines, or the mean of their KV usage."""
    batches = simulation.result.batches
    blocks = simulation.engine.kv_blocks
    series = {
        "running": batches.num_running,
        "waiting": batches.num_waiting,
        "kv_cache_pct": 100 * batches.kv_blocks_used / (blocks if blocks is not None else np.inf),
    }[column]
    engines = np.unique(batches.engine)
    order = np.argsort(batches.start, kind="stable")
    total = np.zeros(len(batches))
    for g in engines:
        own = np.where(batches.engine[order] == g, series[order], np.nan)
        latest = np.maximum.accumulate(np.where(np.isnan(own), -1, np.arange(len(own))))
        total += np.where(latest < 0, 0.0, own[latest])
    return batches.start[order], total / (len(engines) if column == "kv_cache_pct" else 1)


def report(comparison: Comparison, out: Path) -> Path:
    """Write comparison.json, the pictures and report.html to `out`; returns the page."""
    run, numbers = comparison.run, comparison.numbers
    write_json(out / "comparison.json", {**facts(comparison), "seconds": numbers}, indent=1)
    pictures = {"Distributions over requests": distributions(comparison), "Over time": over_time(comparison)}
    for file, svg in zip(("distributions.svg", "over_time.svg"), pictures.values(), strict=True):
        write_text(out / file, svg)
    counts = {
        name: [int(rows.preemptions.sum()), int(rows.recomputed.sum()), int(rows.prefix_hit.sum())]
        for name, rows in ((name, each.result.requests) for name, each in comparison.simulations.items())
    }
    header, rows = table(numbers, comparison.spread_pct)
    return write_page(
        out / "report.html",
        "measured.html.j2",
        package="experiments",
        title=f"{run.name}: measured and simulated",
        lead=f"{len(run.requests.arrival)} requests on {comparison.profile.name}.",
        header=header,
        rows=rows,
        counts=counts,
        notes=[str(note) for note in comparison.notes],
        engines={name: str(each.engine) for name, each in comparison.simulations.items()},
        replicas=run.settings.replicas,
        scheduler=str(scheduler_of(run)),
        pictures=[(caption, svg_source(svg)) for caption, svg in pictures.items()],
    )


def facts(comparison: Comparison) -> dict[str, object]:
    """What was compared, for JSON."""
    return {
        "run": comparison.run.name,
        "profile": comparison.profile.name,
        "requests": len(comparison.run.requests.arrival),
        "factors": {name: each.factor for name, each in comparison.simulations.items()},
        "host_overhead": {name: each.engine.host_overhead for name, each in comparison.simulations.items()},
        "spread_pct": comparison.spread_pct,
        "notes": [str(note) for note in comparison.notes],
    }


def table(
    numbers: dict[str, dict[str, float]], spread_pct: dict[str, float] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of text: metric, measured value, spread of repeats if there are any, simulated and deviation."""
    names = [name for name in next(iter(numbers.values())) if name != "measured"]
    rows = []
    for metric, values in numbers.items():
        scale, unit = (1e3, "ms") if "tpot" in metric else (1.0, "s")
        measured = values["measured"]
        cells = [f"{scale * values[name]:.2f} ({100 * (values[name] / measured - 1):+.1f} %)" for name in names]
        spread = [f"{spread_pct[metric]:.1f} %"] if spread_pct else []
        rows.append([f"{metric} ({unit})", f"{scale * measured:.2f}", *spread, *cells])
    return ["metric", "measured", *(["spread of repeats"] if spread_pct else []), *names], rows


def text_table(comparison: Comparison, color: bool = False) -> str:
    """The comparison as a text table, with what is assumed below it."""
    header, rows = table(comparison.numbers, comparison.spread_pct)
    names, *columns = (TextColumn(name, [row[k] for row in rows]) for k, name in enumerate(header))
    factors = ", ".join(
        f"{name} {each.factor:.3f}" for name, each in comparison.simulations.items() if each.factor != 1
    )
    title = f"{comparison.run.name} on {comparison.profile.name}; factors: {factors or 'none'}"
    return rich_text(*fitting_tables(title, names, columns), color=color) + "".join(
        f"{note}\n" for note in comparison.notes
    )
