"""The network behind every learned policy: a layer of tanh units, then a linear one; inputs and outputs by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import tanh
from typing import NamedTuple

import numpy as np

from llmsched_env.compiled import compiled
from llmsched_env.validation import check_choice

_LARGEST_EXPONENT = 14.0


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a network, and the number of a policy that it sets.

    Attributes:
        name: by which weights are stored and places are looked up.
        start: the number while the output is 0.
        spread: how far the number moves for an output of 1: number = start + spread * output.
        exponential: the number is start * exp(spread * output) instead, for numbers above 0.
    """

    name: str
    start: float
    spread: float = 1.0
    exponential: bool = False

    def inverse(self, number: float) -> float:
        """The output that sets this number."""
        if self.exponential:
            return float((np.log(number) - np.log(self.start)) / self.spread)
        return (number - self.start) / self.spread


class Scaling(NamedTuple):
    """What turns outputs into numbers; each array is f8[outputs]."""

    start: np.ndarray  # its logarithm where the number is exponential
    spread: np.ndarray
    exponential: np.ndarray  # 1 or 0

    def numbers(self, outputs: np.ndarray) -> np.ndarray:
        """f8[..., outputs]: the numbers that these outputs set."""
        numbers: np.ndarray = self.start + self.spread * outputs
        return np.where(self.exponential > 0, np.exp(numbers), numbers)


def scaling(outputs: Sequence[Output]) -> Scaling:
    """The scaling of a table of outputs."""
    return Scaling(
        np.array(
            [np.log(output.start) if output.exponential else output.start for output in outputs], dtype=np.float64
        ),
        np.array([output.spread for output in outputs], dtype=np.float64),
        np.array([float(output.exponential) for output in outputs]),
    )


@dataclass(frozen=True, slots=True)
class Perceptron:
    """What a network's weights are: f8[size], in the order that compiled code reads them.

    Attributes:
        inputs: names of the features it sees.
        hidden: number of tanh units.
        outputs: names of the numbers it sets.
    """

    inputs: tuple[str, ...]
    hidden: int
    outputs: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of weights, biases included."""
        return self.hidden * (len(self.inputs) + 1) + len(self.outputs) * (self.hidden + 1)

    def hidden_layer(self, weights: np.ndarray) -> np.ndarray:
        """[hidden, inputs + 1]: the part of `weights` (f8[size]) that the units use, a view; biases stand last."""
        return weights[: self.hidden * (len(self.inputs) + 1)].reshape(self.hidden, len(self.inputs) + 1)

    def output_layer(self, weights: np.ndarray) -> np.ndarray:
        """[outputs, hidden + 1]: the part of `weights` (f8[size]) that sets the outputs, a view; biases stand last."""
        return weights[self.hidden * (len(self.inputs) + 1) :].reshape(len(self.outputs), self.hidden + 1)

    def input_place(self, name: str) -> int:
        """The column of a feature in the hidden layer.

        Raises:
            ValueError: if there is no feature of this name.
        """
        return self.inputs.index(check_choice("feature", name, self.inputs))

    def output_place(self, name: str) -> int:
        """The row of a number in the output layer.

        Raises:
            ValueError: if there is no number of this name.
        """
        return self.outputs.index(check_choice("number", name, self.outputs))


@compiled
def evaluate(weights, inputs, hidden, outputs):
    """Write the activations of the units to `hidden`, and the outputs; each row of weights ends with its bias."""
    at = 0
    for h in range(len(hidden)):
        total = weights[at + len(inputs)]
        for j in range(len(inputs)):
            total += weights[at + j] * inputs[j]
        hidden[h] = tanh(total)
        at += len(inputs) + 1
    for k in range(len(outputs)):
        total = weights[at + len(hidden)]
        for h in range(len(hidden)):
            total += weights[at + h] * hidden[h]
        outputs[k] = total
        at += len(hidden) + 1


@compiled
def rescale(scale, outputs):
    """Turn outputs into numbers, in place; `scale` is a `Scaling`."""
    for k in range(len(outputs)):
        outputs[k] = scale.start[k] + scale.spread[k] * outputs[k]
        if scale.exponential[k] > 0.0:
            outputs[k] = np.exp(min(_LARGEST_EXPONENT, outputs[k]))
