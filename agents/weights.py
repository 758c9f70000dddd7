"""Weights of trained policies, and states of searches, in files."""

from pathlib import Path
from typing import Any

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


def random_hidden(seed: int, count: int, hidden: int, features: int) -> np.ndarray:
    """f8[count]: weights of a network whose hidden units are random, and whose output layer is zeros."""
    weights = np.zeros(count)
    units = np.random.default_rng([seed, 1]).normal(0, features**-0.5, (hidden, features + 1))
    weights[: units.size] = units.ravel()
    return weights


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays and numbers to an `.npz` file, at once or not at all."""
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.replace(path)
