"""Names to numbers."""

import numpy as np


def numbered(labels: np.ndarray) -> np.ndarray:
    """Number distinct labels [n] from 0 in order of first appearance; read-only i8[n]."""
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    result = number[place]
    result.flags.writeable = False
    return result
