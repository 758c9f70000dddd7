"""Quantile tables as presets give them: completed at their ends, and of seconds instead of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmsched_env.workloads.dist import Quantiles


def complete(levels: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Add levels 0 and 100 (percent) to a table of positive values that lacks them.

    The table goes on with the slope that it has at its end, log-linear as between knots.
    """
    levels, values = list(levels), list(values)
    if levels[0] > 0:
        slope = np.log(values[1] / values[0]) / (levels[1] - levels[0])
        values.insert(0, float(values[0] * np.exp(-slope * levels[0])))
        levels.insert(0, 0)
    if levels[-1] < 100:
        slope = np.log(values[-1] / values[-2]) / (levels[-1] - levels[-2])
        values.append(float(values[-1] * np.exp(slope * (100 - levels[-1]))))
        levels.append(100)
    return levels, values


def token_table(levels: Sequence[float], tokens: Sequence[float]) -> Quantiles:
    """The law of a table of whole numbers >= 1, such as tokens."""
    levels, values = complete(levels, tokens)
    return Quantiles(levels, [max(1, round(value)) for value in values])


@dataclass(frozen=True, slots=True)
class SecondsTable:
    """A law of times known by a table: log-linear between positive knots, linear from a knot at 0.

    Attributes:
        levels: percentages from 0 to 100, increasing.
        seconds: the time at each level, >= 0, not decreasing.
    """

    levels: Sequence[float]
    seconds: Sequence[float]

    @classmethod
    def of(cls, levels: Sequence[float], seconds: Sequence[float]) -> SecondsTable:
        """The law of a table that may lack its ends."""
        return cls(*(tuple(column) for column in complete(levels, seconds)))

    def quantile(self, u: np.ndarray) -> np.ndarray:
        """Map probabilities f8[n] in [0, 1) to seconds f8[n]."""
        levels, seconds = np.array(self.levels) / 100, np.array(self.seconds, float)
        k = np.clip(np.searchsorted(levels, u, side="right") - 1, 0, len(levels) - 2)
        share = (u - levels[k]) / (levels[k + 1] - levels[k])
        low, high = seconds[k], seconds[k + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            curved = low * (high / low) ** share
        return np.where(low > 0, curved, low + (high - low) * share)
