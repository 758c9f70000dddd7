"""Picture of what a fit leaves unexplained."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from llmsched_env.machine.law_fit import Fit

_AXES = {
    "total_tokens": "tokens in the batch",
    "decode_kv_tokens": "context tokens read by decodes",
    "prefill_attn_pairs": "query-key pairs of prefill",
}


def plot_residuals(fit: Fit, path: str | Path, title: str = "") -> Path:
    """Draw predicted against measured time, and the relative error over what is in the batch.

    Args:
        fit: the fit.
        path: file to write; its suffix chooses the kind, such as .png or .svg.
        title: heading.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    measured = 1e3 * fit.batches.seconds
    predicted = measured * (1 + fit.error)
    ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
    axes[0].loglog(ends, ends, color="0.6", linewidth=1)
    axes[0].loglog(measured, predicted, ".", markersize=4)
    axes[0].set(xlabel="measured (ms)", ylabel="predicted (ms)")
    for axis in (axes[0].xaxis, axes[0].yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FormatStrFormatter("%g"))
        axis.set_minor_formatter(NullFormatter())
    for ax, (column, label) in zip(axes[1:], _AXES.items(), strict=True):
        values = getattr(fit.batches, column)
        ax.axhline(0, color="0.6", linewidth=1)
        ax.plot(values, 100 * fit.error, ".", markersize=4)
        ax.set_xscale("symlog" if np.any(values == 0) else "log")
        ax.set(xlabel=label, ylabel="predicted - measured (%)")
    heading = f"{title}: " if title else ""
    figure.suptitle(f"{heading}{fit.form}, MAPE {fit.mape_pct:.2f} %, 95th percentile {fit.p95_pct:.2f} %")
    figure.savefig(path)
    return Path(path)
