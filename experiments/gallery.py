"""How every scheduler composes its first ten batches of the same eight requests: one picture.

python -m experiments.gallery --out docs/schedulers/gallery.png
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

import baselines
from llmsched_env import SLO, EngineConfig, Result, Scheduler, Staircase, Workload, simulate
from llmsched_env.evaluation.rendering import COLORS, styled

BATCHES = 10
BUDGET = 8
COLUMNS = 6

ENGINE = EngineConfig(Staircase(c=0.02, a=0.01, b0=4), token_budget=BUDGET, kv_blocks=24, block_size=1)
"""Room for 24 tokens of KV cache, batches of at most 8 tokens that take 30 or 40 ms."""


def workload() -> Workload:
    """Eight requests, A to H: four at the start, the others within the next batches; two classes, two clients."""
    return Workload.from_arrays(
        arrival=[0.0, 0.0, 0.0, 0.0, 0.035, 0.035, 0.07, 0.1],
        prompt_tokens=[6, 8, 2, 5, 7, 3, 1, 4],
        output_tokens=[5, 2, 8, 3, 2, 6, 4, 3],
        predicted_output=[5.0, 2.0, 8.0, 3.0, 2.0, 6.0, 4.0, 3.0],
        client=[0, 0, 0, 1, 1, 0, 1, 1],
        klass=[0, 1, 0, 1, 0, 1, 0, 1],
        slo=SLO(ttft=0.15, tpot=0.04),
    )


def modest(scheduler: Scheduler) -> Scheduler:
    """The scheduler with parameters of the size of these requests, where it has such."""
    wanted = {
        "token_budget": BUDGET,
        "max_output_tokens": 8,
        "max_new_tokens": 8,
        "mean_output": 4,
        "expected_output": 4,
        "chunk": 4,
        "decode_tile": 4,
        "limit": 1,
        "limit_0": 1,
        "limit_1": 1,
        "max_num_seqs": 6,
        "min_chunk": 2,
        "epsilon": 1,
    }
    params = scheduler.params
    return scheduler(**{k: min(max(v, params[k].low), params[k].high) for k, v in wanted.items() if k in params})


def run(scheduler: Scheduler) -> Result:
    """The run whose first batches are drawn."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "(?s).*stalled", RuntimeWarning
        )  # whole-prompt schedulers may, see their page
        return simulate(modest(scheduler), workload(), ENGINE, record="entries", interpreted=True)


def draw(results: dict[str, Result]) -> Figure:
    """A panel a scheduler: a bar a batch, stacked in scheduling order, a colour a request, prefill hatched."""
    rows = -(-len(results) // COLUMNS)
    figure = Figure(figsize=(14, 1.35 * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (name, result) in zip(grid, results.items(), strict=False):
        _panel(axes, name, result)
    for axes in grid[len(results) :]:
        axes.remove()
    handles = [Patch(facecolor=COLORS[i], label=f"request {'ABCDEFGH'[i]}") for i in range(len(COLORS))]
    handles += [Patch(facecolor="white", edgecolor="black", hatch="////", label="prefill")]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    figure.supxlabel("batch", fontsize=9)
    figure.supylabel("tokens", fontsize=9)
    return figure


def _panel(axes: Axes, name: str, result: Result) -> None:
    entries = result.batch_entries
    level = np.zeros(BATCHES)
    for entry in entries[entries.batch < BATCHES]:
        style = {"hatch": "/////"} if entry.is_prefill else {}
        colour = COLORS[entry.request % len(COLORS)]
        axes.bar(
            entry.batch, entry.tokens, 0.85, level[entry.batch], color=colour, edgecolor="white", linewidth=0.4, **style
        )
        level[entry.batch] += entry.tokens
    axes.set_title(name, fontsize=9, loc="left")
    axes.set(xlim=(-0.6, BATCHES - 0.4), ylim=(0, BUDGET + 0.5), xticks=(0, 4, 9), yticks=(0, 4, 8))
    axes.tick_params(labelsize=7)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Draw how every scheduler composes the same batches.")
    parser.add_argument("--out", type=Path, default=Path("docs/schedulers/gallery.png"), metavar="FILE")
    out = parser.parse_args(arguments).out
    out.parent.mkdir(parents=True, exist_ok=True)
    with styled():
        draw({name: run(scheduler) for name, scheduler in baselines.REGISTRY.items()}).savefig(out, dpi=90)
    print(f"{len(baselines.REGISTRY)} schedulers: {out}")


if __name__ == "__main__":
    main()
