"""Theorem 10 and section 6.2 of arXiv 2504.07347: the effect of a cap on the requests in a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

import baselines
import llmsched_env as ls
from experiments.check import Check, close, exactly, in_range
from experiments.experiment import Experiment, Outcome, Picture
from experiments.paper import LAW, PER_MS, engine, run_seeds
from experiments.regions import draw_region
from llmsched_env import theory
from llmsched_env.evaluation.rendering import line_style, panel_grid, styled, svg_text

BUDGET, SEATS = 1024, 100
ENGINE = engine(BUDGET, max_num_seqs=SEATS)
STOP = 140.0  # s
INTERVAL, PROMPT, OUTPUT = 0.4675, 290, 990  # section 6.2: one request every 467.5 ms
FIVE = {
    "Sarathi-128": baselines.sarathi(token_budget=128),
    "Orca-128": baselines.orca(token_budget=128),
    "vLLM-128": baselines.vllm_prefill_first(token_budget=128),
    "FasterTransformer-128": baselines.fastertransformer(token_budget=128),
    "Sarathi-1024": baselines.sarathi(token_budget=1024),
}
GROWTH = 15_000  # tokens from 70 to 140 s, beyond which a run of section 6.2 is called unbounded
PUBLISHED = {"C": "(0.6203, 2.1176)"}


class Run(NamedTuple):
    """A run that stays at a vertex, and its expected batches."""

    scheduler: ls.Scheduler
    workload: ls.Workload
    horizon: float
    engine: ls.EngineConfig


def run() -> Outcome:
    """Drive the engine to every vertex, and the five schedulers of section 6.2 with the traffic of vertex C."""
    region = theory.theorem10(ENGINE)
    vertices = dict(zip(region.names, region.vertices * PER_MS, strict=True))
    measured = {name: _rates_at_vertex(make()) for name, make in AT_VERTEX.items()}
    checks = [
        exactly(
            f"Vertex {name}: prefill and decode tokens/ms",
            _pair(measured[name]),
            theory=_pair(vertices[name]),
            published=PUBLISHED.get(name),
            note="measured over the last 100 batches of a run at that vertex, to 4 decimals",
        )
        for name in AT_VERTEX
    ]
    runs = {name: run_seeds(scheduler, traffic(), ENGINE, 1, STOP)[0] for name, scheduler in FIVE.items()}
    for name, result in runs.items():
        checks += _checks(name, result)
    return Outcome(tuple(checks), (Picture(_CAPTION, _draw(region, measured, runs)),))


def traffic() -> ls.Workload:
    """Section 6.2: (290, 990) tokens every 467.5 ms, nothing random."""
    n = int(STOP / INTERVAL) + 1
    return ls.Workload.from_arrays(INTERVAL * np.arange(1, n + 1), np.full(n, PROMPT), np.full(n, OUTPUT))


def _pair(rates: np.ndarray) -> str:
    return f"({rates[0]:.4f}, {rates[1]:.4f})"


def _even(interval: float, count: int, prompt: int, output: int) -> ls.Workload:
    """A request every `interval` seconds from 0, at sums that the engine's clock also takes."""
    arrival = np.concatenate([[0.0], np.cumsum(np.full(count - 1, interval))])
    return ls.Workload.from_arrays(arrival, np.full(count, prompt), np.full(count, output))


def _vertex_a() -> Run:
    """Prefill only: prompts of a full budget whose first token is their last."""
    machine = ls.EngineConfig(LAW, token_budget=BUDGET, max_num_seqs=SEATS, first_token="with_prefill")
    seconds = LAW.seconds(BUDGET)
    return Run(baselines.sarathi(token_budget=BUDGET), _even(seconds, 300, BUDGET, 1), 300 * seconds, machine)


def _vertex_b() -> Run:
    """Every batch a whole prompt and a token of each of the K - 1 requests before it, in a full budget."""
    seconds = LAW.seconds(BUDGET)
    workload = _even(seconds, 400, BUDGET - (SEATS - 1), SEATS - 1)
    return Run(baselines.sarathi(token_budget=BUDGET), workload, 400 * seconds, ENGINE)


def _vertex_c() -> Run:
    return Run(FIVE["Sarathi-128"], traffic(), STOP, ENGINE)


def _vertex_d() -> Run:
    """Decode only: as many endless requests as there are seats."""
    workload = _even(0.0, SEATS, 1, 10**6)
    return Run(baselines.sarathi(token_budget=BUDGET), workload, 20.0, ENGINE)


AT_VERTEX: dict[str, Callable[[], Run]] = {"A": _vertex_a, "B": _vertex_b, "C": _vertex_c, "D": _vertex_d}


def _rates_at_vertex(at: Run) -> np.ndarray:
    """Prefill and decode tokens/ms over the last 100 batches."""
    batches = ls.simulate(at.scheduler, at.workload, at.engine, horizon=at.horizon).batches[-100:]
    span = batches.start[-1] + batches.duration[-1] - batches.start[0]
    return np.array([batches.prefill_tokens.sum(), batches.decode_tokens.sum()]) / span * PER_MS


def _checks(name: str, result: ls.Result) -> list[Check]:
    growth = float(result.backlog(STOP) - result.backlog(STOP / 2))
    held = f"§6.2, {name}: tokens of work present at {STOP:g} s"
    grown = f"§6.2, {name}: growth of the backlog from {STOP / 2:g} to {STOP:g} s (tokens)"
    if name == "Sarathi-128":
        last = result.batches[-100:]
        kinds = sorted({(int(p), int(d)) for p, d in zip(last.prefill_tokens, last.decode_tokens, strict=True)})
        return [
            in_range(grown, [growth], -np.inf, PROMPT + OUTPUT, published="stable", note="the tokens of one request"),
            exactly(
                "§6.2, Sarathi-128: prefill and decode tokens of the last 100 batches",
                ", ".join(map(str, kinds)),
                published="(29, 99)",
            ),
            close(
                "§6.2, Sarathi-128: duration of these batches (ms)",
                1e3 * float(last.duration.mean()),
                1e-9,
                published=46.75,
            ),
        ]
    if name in ("vLLM-128", "FasterTransformer-128"):
        return [
            exactly(f"§6.2, {name}: batches run", float(len(result.batches)), published=0.0),
            exactly(held, float(result.backlog(STOP)), theory=382_720.0, note="299 arrivals of 1 280 tokens"),
        ]
    return [in_range(grown, [growth], GROWTH, np.inf, published="unstable")]


def _draw(region: theory.Region, measured: dict[str, np.ndarray], runs: dict[str, ls.Result]) -> str:
    with styled():
        figure, (left, right) = panel_grid(2, columns=2, height=3.8)
        draw_region(left, region.vertices * PER_MS, BUDGET / LAW.seconds(BUDGET) * PER_MS)
        for name, (x, y) in measured.items():
            left.plot(x, y, "o", color="#000000", ms=4.5, label="simulated" if name == "A" else None)
            left.annotate(name, (x, y), (7, 5), textcoords="offset points", fontweight="bold")
        left.set_title(f"b_max = {BUDGET}, at most {SEATS} requests in a batch")
        left.legend(loc="upper right")
        _draw_backlogs(right, runs)
        return svg_text(figure)


def _draw_backlogs(axes: Axes, runs: dict[str, ls.Result]) -> None:
    times = np.linspace(0, STOP, 400)
    for i, (name, result) in enumerate(runs.items()):
        axes.plot(times, result.backlog(times) / 1e3, label=name, **line_style(i))
    axes.set(title="Traffic of vertex C, section 6.2", xlabel="Time (s)", ylabel="Backlog (thousand tokens)")
    axes.set(xlim=(0, STOP), ylim=(0, None))
    axes.legend(loc="upper left")


_CAPTION = (
    "Left: the polygon of rates that some scheduler can sustain, the line that token rates alone would suggest, and "
    "what runs at the four vertices measured. Right: one run of each scheduler; vLLM and FasterTransformer never form "
    "a batch, because a prompt of 290 tokens does not fit into 128."
)

EXPERIMENT = Experiment(
    "theorem10",
    "Theorem 10: a cap on the requests in a batch",
    "With at most 100 requests in a batch the sustainable rates of prefill and decode tokens are a polygon A, B, C, D. "
    "Section 6.2 offers exactly the traffic of vertex C, a request of (290, 990) tokens every 467.5 ms, to five "
    "schedulers: only Sarathi with a budget of 128 locks into the batches of 29 prefill and 99 decode tokens that it "
    "takes.",
    run,
)
