"""Files of trained weights: arrays under the names of what they belong to.

A file stores the names of inputs and outputs with the matrices, so that a feature that is inserted, or moved, leaves
trained policies as they are: what a file does not know gets weights of 0.
"""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmsched_env.files import replacing
from llmsched_env.policies.perceptron import Perceptron
from llmsched_env.validation import did_you_mean


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays and numbers to an `.npz` file, at once or not at all."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


UNREADABLE = (KeyError, ValueError, TypeError, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What reading arrays from a file may raise that was cut short, tampered with, or is of another kind."""


def read_arrays(path: Path, what: str) -> dict[str, np.ndarray]:
    """The arrays in an `.npz` file, by name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if it is another one, or holds numbers that are not finite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}")
    try:
        with path.open("rb") as content, np.load(content) as file:  # it leaves a path open that holds no arrays
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except UNREADABLE as error:
        raise ValueError(f"{path} is no {what}: {error}") from None
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{path} is no {what}: {name} must hold finite numbers")
    return arrays


def save_weights(path: Path, network: Perceptron, weights: np.ndarray, **more: Any) -> None:
    """Write the weights of a network (f8[size]), by the names of its inputs and outputs, to an `.npz` file.

    Args:
        path: of the file.
        network: whose weights they are.
        weights: f8[size].
        more: further numbers for the file, such as what the policy was worth in validation.
    """
    hidden, output = network.hidden_layer(weights), network.output_layer(weights)
    write_arrays(
        path,
        inputs=np.array(network.inputs),
        outputs=np.array(network.outputs),
        hidden_weights=hidden[:, :-1],
        hidden_bias=hidden[:, -1],
        output_weights=output[:, :-1],
        output_bias=output[:, -1],
        **more,
    )


def load_weights(path: str | Path, network: Perceptron, what: str = "trained policy") -> np.ndarray:
    """f8[size]: the weights in a file that `save_weights` wrote, in the order of the present tables.

    A feature that the file does not know has weights of 0, and so has a number: it stays at its start.

    Args:
        path: of the file.
        network: whose weights are wanted.
        what: the file should hold, for messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights, weights that are not finite or of another shape, or those of a feature or
            number that does not exist.
    """
    path = Path(path)
    arrays = read_arrays(path, what)
    try:
        inputs, outputs = _names(arrays, "inputs"), _names(arrays, "outputs")
        hidden = np.column_stack([_numbers(arrays, "hidden_weights"), _numbers(arrays, "hidden_bias")])
        output = np.column_stack([_numbers(arrays, "output_weights"), _numbers(arrays, "output_bias")])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is no {what}: {error}") from None
    units = len(hidden)
    if hidden.shape != (units, len(inputs) + 1) or output.shape != (len(outputs), units + 1) or units > network.hidden:
        raise ValueError(
            f"{path} is no {what}: weights must be of {len(inputs)} inputs, at most {network.hidden} hidden units and "
            f"{len(outputs)} outputs, got {hidden.shape} and {output.shape}"
        )
    columns = _places(path, "feature", inputs, network.inputs)
    rows = _places(path, "number", outputs, network.outputs)
    weights = np.zeros(network.size)
    network.hidden_layer(weights)[:units, [*columns, -1]] = hidden
    network.output_layer(weights)[np.ix_(rows, [*range(units), -1])] = output
    return weights


def _names(arrays: Mapping[str, np.ndarray], name: str) -> list[str]:
    names = arrays[name]
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names):
        raise ValueError(f"{name} must be a list of different names")
    return [str(each) for each in names]


def _numbers(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    numbers = arrays[name]
    if numbers.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold numbers, got {numbers.dtype}")
    return numbers.astype(np.float64)


def _places(path: Path, kind: str, names: Sequence[str], known: Sequence[str]) -> list[int]:
    """Where each of the file's names is in the present table."""
    for name in names:
        if name not in known:
            raise ValueError(
                f"{path} has weights of the {kind} {name!r}, which does not exist; {did_you_mean(name, known)}"
            )
    return [known.index(name) for name in names]
