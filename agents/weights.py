"""Weights of trained policies in files."""

from pathlib import Path

import numpy as np


def read_weights(path: str | Path, count: int, what: str = "trained policy") -> np.ndarray:
    """f8[count]: the array `weights` of an `.npz` file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it does not hold so many numbers under that name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}")
    try:
        with np.load(path) as file:
            weights = file["weights"]
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no {what}: {error}") from None
    if weights.shape != (count,):
        raise ValueError(f"{path} is no {what}: weights must be {count} numbers, got {weights.shape}")
    return weights
