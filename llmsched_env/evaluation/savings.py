"""What one policy saves of another's costs: logarithms, so that a case counts by the share that is saved in it."""

from __future__ import annotations

import numpy as np

FLOOR = {"slo_attainment": 0.004, "mean_e2el": 0.0}
"""By objective, what is added to costs before taking logarithms, so that a single missed request counts little."""


def saved(own: np.ndarray, reference: np.ndarray, objective: str = "mean_e2el") -> np.ndarray:
    """Logarithms of the reference's costs over one's own, by case: above 0 is better."""
    floor = FLOOR[objective]
    return np.asarray(np.log((reference + floor) / (own + floor)))
