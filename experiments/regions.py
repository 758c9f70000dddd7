"""Stability regions as pictures: rates of prefill and decode tokens."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes


def draw_region(axes: Axes, vertices: np.ndarray, token_rate: float) -> None:
    """Draw the region with these vertices, f8[n, 2] tokens/ms, and the line where rates sum to `token_rate`."""
    corners = np.concatenate([[[0.0, 0.0]], vertices])
    axes.fill(*corners.T, facecolor="#e9eef3", edgecolor="#44546a", lw=1.3, label="stable for some scheduler", zorder=1)
    axes.plot(
        [0, token_rate], [token_rate, 0], color="#999999", lw=0.9, ls=(0, (5, 3)), label="token rate b_max/t_bmax"
    )
    axes.set(xlabel="Prefill rate (tokens/ms)", ylabel="Decode rate (tokens/ms)")
    axes.set(xlim=(0, 1.06 * max(token_rate, corners[:, 0].max())), ylim=(0, 1.2 * corners[:, 1].max()))
