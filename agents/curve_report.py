"""The learning curve in reports: a figure, a table, and whether the training went anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogFormatter, NullFormatter

from agents.learning_curve import OWN_ACTIONS, STATIC_BEST, LearningCurve
from llmsched_env.evaluation.rendering import Opening, line_style, panel_grid, styled, svg_source, svg_text

NO_PROGRESS = "THE TRAINING DID NOT IMPROVE ON ITS START."
"""The first line of the report of a training whose best checkpoint is its first."""
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
_LINES = 6  # references that are drawn and named, the best ones


def warning(curve: LearningCurve) -> list[str]:
    """`NO_PROGRESS` if it holds."""
    return [NO_PROGRESS] if curve.points and not curve.improved else []


def shown_lines(curve: LearningCurve) -> dict[str, float]:
    """The references that are drawn: the constant actions and the best of the others that do not flatten the curve."""
    near = curve.in_range()
    names = [name for name in near if name in OWN_ACTIONS]
    names += [name for name in near if name not in OWN_ACTIONS][: _LINES - len(names)]
    return {name: near[name] for name in near if name in names}


def curve_rows(curve: LearningCurve) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of validations, with what the agent has over the best baseline and constant."""
    others = [name for name in (curve.best_baseline, STATIC_BEST) if name in curve.references]
    unit = f", {curve.value_unit}" if curve.value_unit else ""
    header = [curve.unit.capitalize(), "Time, s", f"{curve.title}{unit}", *(f"less {name}" for name in others), "Best"]
    rows = []
    for point in curve.points:
        differences = [f"{curve.scale * (point.value - curve.references[str(name)]):+.3g}" for name in others]
        mark = "<" if point == curve.best else ""
        rows.append([f"{point.step:,}", f"{point.seconds:.0f}", f"{curve.scale * point.value:.5g}", *differences, mark])
    return header, rows


def curve_section(curve: LearningCurve) -> Opening:
    """A section with the figure and the table."""
    left_out = [name for name in curve.references if name not in shown_lines(curve)]
    text = (
        f"{curve.title} on the validation runs (tuning seeds) by {curve.unit} of training; the checkpoint with the "
        "best one is kept. Lines: others on the same runs."
    )
    if left_out:
        text += f" Not drawn, as they are worse: {', '.join(left_out)}."
    header, rows = curve_rows(curve)
    return Opening("curve", "Learning curve", text, svg_source(curve_figure([curve])), header, rows)


def curve_figure(curves: Sequence[LearningCurve], mean: Any = None) -> str:
    """Curves against the lines of the references, as SVG.

    Args:
        curves: one, or those of several training seeds.
        mean: (steps, mean, half width of the 95 % interval) over the seeds, as arrays; None: not drawn.
    """
    first = curves[0]
    with styled():
        figure, (axes,) = panel_grid(1, 1, height=4.2)
        for k, (name, value) in enumerate(shown_lines(first).items()):
            _reference_line(axes, first, name, value, k)
        for curve in curves:
            steps = [point.step for point in curve.points]
            values = [_drawn(curve, point.value) for point in curve.points]
            alone = len(curves) == 1
            style: dict[str, Any] = (
                {"linewidth": 2.4, "marker": "o", "ms": 4} if alone else {"linewidth": 0.9, "alpha": 0.5}
            )
            axes.plot(steps, values, color="black", label="agent" if alone else None, **style)
            best = curve.best
            axes.plot([best.step], [_drawn(curve, best.value)], marker="*", ms=13 if alone else 8, color="black")
        if mean is not None:
            steps, middle, half = mean
            axes.plot(steps, _drawn(first, middle), color="black", linewidth=2.4, label="agent, mean over seeds")
            low, high = _drawn(first, middle - half), _drawn(first, middle + half)
            axes.fill_between(steps, low, high, color="black", alpha=0.15, linewidth=0)
        unit = f" ({first.value_unit})" if first.value_unit else ""
        axes.set(xlabel=f"{first.unit.capitalize()} of training (star: the checkpoint that is kept)")
        if _by_misses(first):
            axes.set(ylabel="Requests that miss their SLO (%), lower is better", yscale="log")
        else:
            axes.set(ylabel=f"{first.title}{unit}", yscale="log" if first.objective else "linear")
        axes.yaxis.set_major_formatter(_PLAIN)
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 1)) if first.objective else NullFormatter())
        figure.legend(loc="outside right upper")
        return svg_text(figure)


def _by_misses(curve: LearningCurve) -> bool:
    return curve.objective == "slo_attainment"


def _drawn(curve: LearningCurve, value: Any) -> Any:
    """A value as it is drawn: an attainment near 1 by what is missing, at least a hundredth of a percent."""
    return curve.scale * np.maximum(1.0 - value, 1e-4) if _by_misses(curve) else curve.scale * value


def _reference_line(axes: Axes, curve: LearningCurve, name: str, value: float, k: int) -> None:
    wide = 2.0 if name in (curve.best_baseline, STATIC_BEST) else 1.1
    style = line_style(k) | {"linewidth": wide}
    axes.axhline(_drawn(curve, value), label=f"{name}: {_drawn(curve, value):.4g} {curve.value_unit}".rstrip(), **style)
