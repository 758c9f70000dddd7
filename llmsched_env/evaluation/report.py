"""A comparison as one HTML file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from llmsched_env.evaluation import plots, table
from llmsched_env.evaluation.cases import load_text
from llmsched_env.evaluation.comparison import CellKey, Comparison, ComparisonCell
from llmsched_env.evaluation.rendering import Opening, svg_source, write_page
from llmsched_env.results.stability import STABILITY_THRESHOLD
from llmsched_env.slo import SLO

_TERMS = (
    ("TTFT", "time from arrival to the first output token"),
    (
        "TPOT",
        "time per output token after the first: one value for each finished request of more than one output token",
    ),
    ("E2E", "time from arrival to the last output token"),
    (
        "× bound",
        "mean E2E latency over a lower bound for every scheduler on the same requests, a mean over seeds; it may be "
        "that no scheduler can reach 1. Only where all requests finished",
    ),
    ("SLO met", "share of all requests that finished within every limit; a request that never finished has missed"),
    ("Goodput", "requests within every limit, per second"),
    ("Requests, Output", "finished requests and their output tokens, over the whole run including the time to drain"),
    (
        "Load",
        "offered rate over the reference capacity, which depends on the machine and the token mix, never on a "
        "scheduler's parameters; no scheduler can sustain much more than load 1",
    ),
    (
        "Stable",
        "whether the queue stays bounded: growth of the backlog in the second half of the arrivals, as a fraction of "
        "the offered tokens per second; unstable (stable) if its 95 % interval (over seeds; for one trace over five "
        f"spans of time) lies above (below) {STABILITY_THRESHOLD:.0%}, else undecided; a scheduler that stalled is "
        "unstable",
    ),
    ("±", "half width of the 95 % t-interval over seeds; every scheduler gets the same requests in each seed"),
)


Figures = tuple[str, str, str, list[tuple[str, str]]]


def write_report(
    comparison: Comparison,
    path: str | Path,
    *,
    reference: str | None = None,
    title: str = "Comparison of schedulers",
    command: str | None = None,
    lead: str | None = None,
    opening: Sequence[Opening] = (),
    drawn: Sequence[str] | None = None,
) -> Path:
    """Write the report: one HTML file that needs no other file, so it can be mailed or archived.

    Args:
        comparison: what to report.
        path: the HTML file.
        reference: scheduler to which differences are shown, paired by seed; None: no differences.
        title: heading of the report.
        command: the command line that made it.
        lead: what stands below the heading; None: what is compared on what.
        opening: sections before the results.
        drawn: schedulers that the figures show; None: all.

    Returns:
        `path`.

    Raises:
        ValueError: if `reference` is not in the comparison.
    """
    shown = comparison if drawn is None else replace(comparison, cells=_cells_of(comparison, drawn))
    return write_page(
        path,
        "report.html.j2",
        title=title,
        lead=_lead(comparison) if lead is None else lead,
        opening=opening,
        blocks=table.comparison_tables(comparison, reference),
        figures=_figures(shown),
        facts=_facts(comparison, command),
        schedulers=[
            (name, comparison.settings[name], comparison.notes.get(name, "")) for name in comparison.schedulers
        ],
        workloads=_workloads(comparison),
        terms=_TERMS,
    )


def _cells_of(comparison: Comparison, names: Sequence[str]) -> dict[CellKey, ComparisonCell]:
    return {key: cell for key, cell in comparison.cells.items() if key[0] in names}


def _lead(comparison: Comparison) -> str:
    blocks = list(comparison.by_workload_and_load())
    workloads = list(dict.fromkeys(workload for workload, _, _ in blocks))
    loads = list(dict.fromkeys(load_text(load) for _, load, _ in blocks))
    return (
        f"{len(comparison.schedulers)} schedulers on {', '.join(workloads)} at load {', '.join(loads)}, "
        f"engine {comparison.engine.name}. Simulated."
    )


def _figures(comparison: Comparison) -> list[Figures]:
    """Id, heading, text and (workload, source of the image) of each section of figures."""
    workloads = list(dict.fromkeys(workload for workload, _, _ in comparison.by_workload_and_load()))

    def section(id: str, heading: str, text: str, draw: Callable[[Comparison, str], str]) -> Figures:
        pictures = [(name, draw(comparison, name)) for name in workloads]
        return id, heading, text, [(name, svg_source(svg)) for name, svg in pictures if svg]

    return [
        section(
            "queue",
            "Queue over time",
            "Requests in the system, waiting or running, in the first seed. Linear up to 10, logarithmic above.",
            plots.queue_over_time,
        ),
        section(
            "latency",
            "Latency distributions",
            "Fraction of requests within a latency, in the first seed. A curve that ends below 1 shows that some "
            "requests never reached it.",
            plots.latency_cdfs,
        ),
        section(
            "load",
            "Against load",
            "Means over seeds with 95 % intervals; points are shifted slightly so that they do not overlap.",
            plots.against_load,
        ),
    ]


def _facts(comparison: Comparison, command: str | None) -> list[tuple[str, str]]:
    engine = comparison.engine
    law = engine.batch_time
    unsure = [("Step noise", f"log step times scatter by {engine.step_noise:g}")] if engine.step_noise else []
    if engine.believed_batch_time is not None or engine.believed_host_overhead is not None:
        unsure.append(("Schedulers believe", f"{_law(engine.believed_batch_time or law)}, host {engine.believed_host}"))
    return [
        ("Engine", engine.name),
        ("Batch time", f"{_law(law)}, seconds and tokens; host {engine.host_overhead}"),
        *unsure,
        (
            "Limits of the engine",
            f"{engine.token_budget} tokens and {engine.max_num_seqs or 'any number of'} requests in a batch; KV cache "
            + (f"of {engine.kv_blocks} blocks of {engine.block_size} tokens" if engine.kv_blocks else "unlimited")
            + (", prefixes reused" if engine.prefix_caching else "")
            + (f", {engine.swap_blocks} blocks on the host" if engine.swap_blocks else "")
            + ("; batches decided ahead" if engine.schedule_ahead else ""),
        ),
        ("First token", engine.first_token),
        ("Runs", "until drained" if comparison.horizon is None else f"stopped at {comparison.horizon:g} s"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in comparison.versions.items())),
        *([("Command", command)] if command else []),
    ]


def _law(law: Any) -> str:
    numbers = {f.name: getattr(law, f.name) for f in fields(law)}
    texts = {n: f"{v:g}" if isinstance(v, int | float) else f"{len(v)} knots to {v[-1][0]}" for n, v in numbers.items()}
    return f"{type(law).__name__}({', '.join(f'{name}={text}' for name, text in texts.items())})"


def _workloads(comparison: Comparison) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for workload, load, cells in comparison.by_workload_and_load():
        cell, requests = cells[0], cells[0].requests
        seeds = f"{cell.seeds[0]} to {cell.seeds[-1]}" if len(cell.seeds) > 1 else "one trace"
        numbers = (
            f"{len(requests)}",
            f"{requests.arrival[-1]:.4g}" if len(requests) else "–",
            "–" if math.isnan(cell.rate) else f"{cell.rate:.4g}",
            f"{cell.capacity:.4g}",
            f"{requests.prompt_tokens.mean():.4g}" if len(requests) else "–",
            f"{requests.output_tokens.mean():.4g}" if len(requests) else "–",
        )
        rows.append((workload, load_text(load), *numbers, _slo_text(comparison, requests), seeds))
    return rows


def _slo_text(comparison: Comparison, requests: np.recarray) -> str:
    """The limits of all requests, or that they differ."""
    slo = comparison.slo
    if slo is None:
        pairs = np.unique(np.column_stack([requests.ttft_slo, requests.tpot_slo]), axis=0)
        if len(pairs) != 1:
            return "each request's own"
        slo = SLO(*pairs[0])
    limits = {name: limit for name, limit in asdict(slo).items() if math.isfinite(limit)}
    return ", ".join(f"{name} ≤ {limit:g} s" for name, limit in limits.items()) or "none"
