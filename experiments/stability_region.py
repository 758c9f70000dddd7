"""Stability regions of arXiv 2504.07347: the limit of theory, and the simulated capacity of each scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

import baselines
import llmsched_env as ls
from experiments.check import Check, Verdict, interval_verdict
from experiments.experiment import Experiment, Outcome, Picture
from experiments.paper import PER_MS, engine
from experiments.regions import draw_region
from llmsched_env import theory
from llmsched_env.evaluation.capacity_search import CapacityEstimate, empirical_capacity
from llmsched_env.evaluation.rendering import MARKERS, line_style, panel_grid, styled, svg_text

MIXES = ((190, 10), (180, 20), (150, 50), (100, 100), (50, 150), (20, 180))  # prompt and output tokens of all requests
TOLERANCE = 0.02  # of the limit of Theorem 2, for schedulers that should reach it


@dataclass(frozen=True)
class RegionSetting:
    """An engine and the schedulers to try on it; `reached`: work-conserving ones should reach the limit."""

    title: str
    short: str
    engine: ls.EngineConfig
    schedulers: Mapping[str, ls.Scheduler]
    reached: bool


SETTINGS = (
    RegionSetting(
        "b_max = 512",
        "No cap",
        engine(512),
        {
            "Sarathi": baselines.sarathi(token_budget=512),
            "Orca": baselines.orca(token_budget=512),
            "vLLM (2023)": baselines.vllm_prefill_first(token_budget=512),
            "FasterTransformer": baselines.fastertransformer(token_budget=512),
        },
        reached=True,
    ),
    RegionSetting(
        "b_max = 1024, at most 100 requests in a batch",
        "Cap of 100",
        engine(1024, max_num_seqs=100),
        {
            "Sarathi-1024": baselines.sarathi(token_budget=1024),
            "Orca-1024": baselines.orca(token_budget=1024),
            "vLLM-1024": baselines.vllm_prefill_first(token_budget=1024),
            "FasterTransformer-1024": baselines.fastertransformer(token_budget=1024),
            "Sarathi-128": baselines.sarathi(token_budget=128),
        },
        reached=False,
    ),
)


@dataclass(frozen=True)
class MixCapacity:
    """The capacity of a scheduler for one mix, and the limit of theory for any scheduler, in requests/s."""

    mix: tuple[int, int]
    estimate: CapacityEstimate
    limit: float

    @property
    def share(self) -> float:
        """The capacity as a share of the limit."""
        return self.estimate.rate / self.limit

    @property
    def bracket(self) -> tuple[float, float]:
        """Lower and upper bound of the share."""
        return self.estimate.low / self.limit, self.estimate.high / self.limit


def run() -> Outcome:
    """Search the capacity of every scheduler on every mix."""
    points = {
        (setting.title, name): [measure(scheduler, mix, setting.engine) for mix in MIXES]
        for setting in SETTINGS
        for name, scheduler in setting.schedulers.items()
    }
    checks = [
        check_points(
            f"{setting.short}, {name}: capacity over the limit",
            points[setting.title, name],
            reached=setting.reached and scheduler.work_conserving,
        )
        for setting in SETTINGS
        for name, scheduler in setting.schedulers.items()
    ]
    return Outcome(tuple(checks), (Picture(_CAPTION, _draw(points)),))


def measure(scheduler: ls.Scheduler, mix: tuple[int, int], machine: ls.EngineConfig) -> MixCapacity:
    """The empirical capacity under Poisson arrivals of requests that all have these prompt and output tokens."""
    workload = ls.Workload.poisson(1.0, *mix, horizon=100.0)
    limit = theory.theorem10(machine).capacity(workload, machine)
    return MixCapacity(mix, empirical_capacity(scheduler, workload, machine, max_evaluations=60), limit)


def check_points(name: str, points: list[MixCapacity], reached: bool) -> Check:
    """Passes if no bracket is above the limit and, if it should be `reached`, none is far below it."""
    verdicts = {_verdict(point, reached) for point in points}
    verdict = next(v for v in ("fail", "undecided", "pass") if v in verdicts)
    shares = [point.share for point in points]
    ours = f"{min(shares):.3f} to {max(shares):.3f}"
    rule = f"every bracket within {100 * TOLERANCE:g} % of the limit" if reached else "no bracket beyond the limit"
    known = 100 * max(high - low for low, high in (point.bracket for point in points)) / 2
    note = f"{rule}; {len(points)} mixes, brackets of a stable and an unstable rate of ±{known:.1f} % at most"
    return Check(name, None, "1" if reached else "≤ 1", ours, math.nan, verdict, note)


def _verdict(point: MixCapacity, reached: bool) -> Verdict:
    low, high = point.bracket
    if low > 1:
        return "fail"
    if not point.estimate.decided:
        return "undecided"
    return interval_verdict((low + high) / 2, (high - low) / 2, 1 - TOLERANCE, 1 + TOLERANCE) if reached else "pass"


def _draw(points: dict[tuple[str, str], list[MixCapacity]]) -> str:
    with styled():
        figure, panels = panel_grid(len(SETTINGS), columns=2, height=4.2)
        for axes, setting in zip(panels, SETTINGS, strict=True):
            vertices, token_rate = theory.theorem10(setting.engine).vertices, theory.token_rate(setting.engine)
            draw_region(axes, vertices * PER_MS, token_rate * PER_MS)
            for i, name in enumerate(setting.schedulers):
                _draw_points(axes, points[setting.title, name], i, name)
            axes.set_title(setting.title)
            axes.legend(loc="upper right")
        return svg_text(figure)


def _draw_points(axes: Axes, points: list[MixCapacity], i: int, name: str) -> None:
    rates = np.array([point.mix for point in points]) * [[point.estimate.rate * PER_MS] for point in points]
    size = 9 - 1.2 * i  # so that points in the same place show
    axes.plot(*rates.T, marker=MARKERS[i], ms=size, mfc="none", label=name, **{**line_style(i), "linewidth": 1.0})


_CAPTION = (
    f"Each point is the largest rate of one mix of prompt and output tokens, {', '.join(map(str, MIXES))}, at which a "
    "scheduler was found stable; lines join the points of a scheduler. Left: without a cap the region is a "
    "triangle, and work-conserving schedulers reach all of it. Right: with a cap it is the polygon of Theorem 10."
)

EXPERIMENT = Experiment(
    "stability_region",
    "Stability regions",
    "Theory says which rates of prefill and decode tokens some scheduler can sustain. For several mixes of prompt and "
    "output tokens the largest stable rate of each scheduler is searched, by bisection with a test of whether its "
    "backlog grows.",
    run,
)
