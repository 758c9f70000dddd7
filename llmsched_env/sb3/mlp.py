"""NumPy inference of a multilayer perceptron (MLP) policy: tens of microseconds an action, without torch."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space

from llmsched_env.validation import check_choice

Layer = tuple[np.ndarray, np.ndarray]
"""Weight f4[out, in] and bias f4[out] of a linear layer."""

_LEAST = -80.0  # below it, exp(-x) overflows float32 and both functions are 0

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "leaky_relu": lambda x: np.where(x > 0.0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0))),
    "silu": lambda x: x / (1.0 + np.exp(-np.maximum(x, _LEAST))),
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-np.maximum(x, _LEAST))),
}
"""Activation functions by name, with the constants that torch has by default."""


class MLP:
    """Linear layers with an activation between them; its outputs are read by the space of actions.

    - `MultiDiscrete`: a value for each level, those of one knob after those of the other; the action is the largest of
      each.
    - `Discrete`: likewise, for a single knob; actions that are masked are never chosen.
    - `Box`: the outputs are the action, clipped to the bounds. With `squashed` they pass through tanh, and -1 to 1 is
      mapped to the bounds.

    An instance is not changed by calls, so threads may share it.

    Args:
        layers: from the observation to the outputs.
        activation: between the layers, a name of `ACTIVATIONS`.
        space: of the action.
        squashed: whether actions of a `Box` are squashed, as those of SAC and TD3 are.

    Raises:
        ValueError: naming the argument, if layers do not fit each other or the space, hold what is not finite, or the
            space or the activation is another.
    """

    def __init__(
        self, layers: Sequence[Layer], activation: str, space: Space[np.ndarray], *, squashed: bool = False
    ) -> None:
        self.activation = check_choice("activation", activation, ACTIVATIONS)
        self.layers = tuple(
            (np.array(weight, np.float32, ndmin=2), np.array(bias, np.float32, ndmin=1)) for weight, bias in layers
        )
        if not self.layers:
            raise ValueError("layers must hold one or more layers, got none")
        self.space, self.squashed = space, squashed
        widths = [self.num_features, *(len(bias) for _, bias in self.layers)]
        shapes = [weight.shape for weight, _ in self.layers]
        if shapes != list(zip(widths[1:], widths[:-1], strict=True)) or any(b.ndim != 1 for _, b in self.layers):
            raise ValueError(f"layers must fit each other, got weights of shapes {shapes} and biases of {widths[1:]}")
        if not all(np.isfinite(array).all() for layer in self.layers for array in layer):
            raise ValueError("layers must hold finite numbers, got nan or inf among the weights")
        if isinstance(space, Box):
            if len(space.shape) != 1 or not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
                raise ValueError(f"space must be a bounded Box of one dimension, got {space}")
            outputs = space.shape[0]
        elif isinstance(space, Discrete | MultiDiscrete) and not np.any(space.start) and not squashed:
            sizes = [space.n] if isinstance(space, Discrete) else space.nvec
            outputs, self._splits = int(np.sum(sizes)), np.cumsum(sizes)[:-1].tolist()
        else:
            raise ValueError(f"space must be a Box, or Discrete or MultiDiscrete from 0 and not squashed, got {space}")
        if widths[-1] != outputs:
            raise ValueError(f"the last layer must have {outputs} outputs for actions of {space}, got {widths[-1]}")
        self._activate = ACTIVATIONS[activation]

    @property
    def num_features(self) -> int:
        """Size of an observation."""
        return int(self.layers[0][0].shape[1])

    def outputs(self, observation: np.ndarray) -> np.ndarray:
        """f4[outputs] for an observation f4[features]."""
        values = observation
        for weight, bias in self.layers[:-1]:
            values = self._activate(weight @ values + bias)
        weight, bias = self.layers[-1]
        return np.asarray(weight @ values + bias)

    def __call__(self, observation: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """The most probable action (or the mean, or the one of most value).

        Args:
            observation: f4[features].
            mask: [n], the allowed actions of `Discrete(n)`; None: all.

        Returns:
            An element of the space as an array, of no dimension for `Discrete`.
        """
        outputs = self.outputs(observation)
        if isinstance(self.space, Box):
            if not self.squashed:
                return np.asarray(np.clip(outputs, self.space.low, self.space.high))
            low, high = self.space.low, self.space.high
            return np.asarray(low + 0.5 * (np.tanh(outputs) + 1.0) * (high - low), np.float32)
        if isinstance(self.space, Discrete):
            if mask is not None:
                outputs = np.where(mask, outputs, -np.inf)
            return np.asarray(outputs.argmax())
        return np.array([part.argmax() for part in np.split(outputs, self._splits)])

    @property
    def digest(self) -> str:
        """Changes with anything that decides: weights, activation, space."""
        digest = hashlib.sha256(repr((self.activation, self.space, self.squashed)).encode())
        for array in (array for layer in self.layers for array in layer):
            digest.update(repr(array.shape).encode() + array.tobytes())
        return digest.hexdigest()
