"""Fig. 5 and 6 of arXiv 2504.07347: batch time over tokens in the batch, as a staircase."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

import llmsched_env as ls
from experiments.check import close
from experiments.experiment import Experiment, Outcome, Picture
from experiments.paper import LAW
from llmsched_env.evaluation.rendering import line_style, panel_grid, shared_legend, styled, svg_text

TOKENS = 1024  # what the profiles' staircases were fitted up to
CALIBRATED = "codellama-34b_a100-80gb_tp1"  # what the paper prints coefficients for
SHOWN = (  # a model of each size, and CodeLlama-34B on every GPU, all with kernels of one source
    CALIBRATED,
    "codellama-34b_h100-80gb_tp1",
    "codellama-34b_a40-48gb_tp2",
    "llama-2-7b_a100-80gb_tp1",
    "internlm-20b_a100-80gb_tp1",
    "llama-2-70b_a100-80gb_tp4",
)
TOLERANCES = {128: 0.10, 512: 0.06}  # by tokens in the batch


def run() -> Outcome:
    """Compare the shipped staircase with the published one, and draw those of other models and GPUs."""
    ours = ls.gpu_profile(CALIBRATED).staircase
    checks = tuple(
        close(
            f"CodeLlama-34B, A100: time of {tokens} tokens (ms)",
            1e3 * ours.seconds(tokens),
            tolerance,
            published=1e3 * LAW.seconds(tokens),
            note="fitted to other kernel measurements than the paper's, without attention and output head",
        )
        for tokens, tolerance in TOLERANCES.items()
    )
    return Outcome(checks, (Picture(_CAPTION, _draw()),))


def _draw() -> str:
    tokens = np.arange(1, TOKENS + 1)
    with styled():
        figure, panels = panel_grid(len(SHOWN), columns=3, height=2.6)
        for axes, name in zip(panels, SHOWN, strict=True):
            _draw_profile(axes, ls.gpu_profile(name), tokens)
        panels[0].plot(tokens, 1e3 * LAW.seconds(tokens), label="staircase, published", **line_style(1))
        shared_legend(figure, panels[0])
        return svg_text(figure)


def _draw_profile(axes: Axes, profile: ls.GPUProfile, tokens: np.ndarray) -> None:
    stairs, hinge = profile.staircase, profile.hinge
    axes.plot(tokens, 1e3 * stairs.seconds(tokens), label="staircase of the shipped profile", **line_style(0))
    axes.plot(tokens, 1e3 * hinge.seconds(tokens), label="hinge of the shipped profile", **line_style(2))
    gpus = f"{profile.tensor_parallel} × " if profile.tensor_parallel > 1 else ""
    axes.set(title=f"{profile.model}, {gpus}{profile.gpu}", xlabel="Tokens in the batch", ylabel="Batch time (ms)")
    axes.text(0.03, 0.93, f"c = {1e3 * stairs.c:.2f} ms, a = {1e3 * stairs.a:.2f} ms", transform=axes.transAxes)
    axes.set_xlim(0, TOKENS)
    axes.set_xticks(range(0, TOKENS + 1, 256))
    axes.set_ylim(bottom=0)


_CAPTION = (
    "t = c + a⌈b/128⌉, and the hinge t = c + a·max(0, b − b0) of the paper's first version, both fitted to the same "
    "kernel times."
)

EXPERIMENT = Experiment(
    "batch_times",
    "Fig. 5 and 6: batch time as a staircase",
    "The paper fits t = c + a⌈b/b0⌉ to measured batch times and prints c = 11.28 ms, a = 35.47 ms, b0 = 128 for "
    "CodeLlama-34B on an A100. The shipped profile of that pair rests on independent measurements, so agreement "
    "within 10 % at one stair and 6 % at four is what can be expected.",
    run,
)
