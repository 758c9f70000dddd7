"""Fig. 8 of arXiv 2504.07347: which batches the four schedulers compose of five requests."""

from __future__ import annotations

from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import llmsched_env as ls
from experiments.check import exactly
from experiments.experiment import Experiment, Outcome, Picture
from experiments.paper import FOUR
from llmsched_env.evaluation.rendering import COLORS, panel_grid, styled, svg_text

# A, B and C as one-token prompts at 0, so that batch 0 is their prefill; D and E arrive during batch 1.
REQUESTS = ls.Workload.from_arrays([0.0, 0.0, 0.0, 1.25, 1.5], [1, 1, 1, 1, 1], [2, 4, 3, 1, 1])
ENGINE = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=128), token_budget=16, first_token="separate")
PUBLISHED = {  # token budget and batches; * marks a prefill token, the others are decode tokens
    "vLLM (2023)": (4, "ABC | D*E* | ABCD | BCE | B"),
    "Orca": (5, "ABC | ABCD*E* | BCDE | B"),
    "FasterTransformer": (4, "ABC | ABC | BC | B | D*E* | DE"),
    "Sarathi": (4, "ABC | ABCD* | BCDE* | BE"),
}
_DECODE, _PREFILL = COLORS[0], COLORS[4]


def run() -> Outcome:
    """Run the five requests through every scheduler."""
    batches = {}
    for name, (budget, _) in PUBLISHED.items():
        result = ls.simulate(FOUR[name](token_budget=budget), REQUESTS, ENGINE, record="entries")
        batches[name] = compositions(result)[1:]
    checks = tuple(
        exactly(
            f"{name}, b_max = {budget}",
            " | ".join("".join(batch) for batch in batches[name]),
            published=published,
            note="the tokens of every batch; * prefill, else decode",
        )
        for name, (budget, published) in PUBLISHED.items()
    )
    return Outcome(checks, (Picture("A box is a batch, a square a token of the request named in it.", _draw(batches)),))


def compositions(result: ls.Result) -> list[list[str]]:
    """The tokens of each batch, by request: A for a decode token of the first one, A* for a prefill token."""
    return [
        sorted("ABCDE"[entry.request] + "*" * bool(entry.is_prefill) for entry in entries)
        for _, entries in groupby(result.batch_entries, key=lambda entry: entry.batch)
    ]


def _draw(batches: dict[str, list[list[str]]]) -> str:
    with styled():
        figure, panels = panel_grid(len(batches), columns=4, height=2.3)
        for axes, (name, rows) in zip(panels, batches.items(), strict=True):
            _draw_batches(axes, rows)
            axes.set(
                title=f"{name}, b_max = {PUBLISHED[name][0]} tokens",
                xlabel="Batch",
                xlim=(0.4, 6.6),
                xticks=range(1, 7),
            )
            axes.set(ylabel="Tokens in the batch" if axes is panels[0] else "", ylim=(0, 5.2))
            axes.grid(False)
        keys = [Rectangle((0, 0), 1, 1, color=color) for color in (_DECODE, _PREFILL)]
        figure.legend(keys, ["decode token", "prefill token"], loc="outside upper center", ncols=2)
        return svg_text(figure)


def _draw_batches(axes: Axes, rows: list[list[str]]) -> None:
    for number, batch in enumerate(rows, start=1):
        for height, token in enumerate(batch):
            color = _PREFILL if token.endswith("*") else _DECODE
            axes.add_patch(Rectangle((number - 0.44, height + 0.04), 0.88, 0.92, color=color, linewidth=0))
            axes.text(number, height + 0.5, token[0], ha="center", va="center", color="white", fontweight="bold")


EXPERIMENT = Experiment(
    "fig8",
    "Fig. 8: the batches of five requests",
    "A, B and C decode with 2, 4 and 3 tokens left when D and E arrive, with one prompt and one output token each. The "
    "figure of the paper lists the batches that the four schedulers compose; no single token budget fits all of its "
    "rows, so Orca has 5 and the others 4.",
    run,
)
