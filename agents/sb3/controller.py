"""A trained policy as the controller of a scheduler: observe, decide, set the knobs."""

import hashlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from llmsched_env.envs.actions import Arms
from llmsched_env.envs.batch_queue import OBSERVATION, Knobs
from llmsched_env.envs.features import Observer
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.world import View

Layer = tuple[np.ndarray, np.ndarray]
"""Weight f4[out, in] and bias f4[out] of a linear layer."""


class PolicyNetwork:
    """The actor of an SB3 `MlpPolicy`, or the Q-network of a DQN, in NumPy: tens of microseconds a decision.

    Args:
        layers: linear layers from the observation to the logits, tanh between them.
        sizes: number of levels of each knob, or of arms; the logits of one knob stand after those of the other.

    Raises:
        ValueError: if the layers do not fit each other or the knobs.
    """

    def __init__(self, layers: list[Layer], sizes: tuple[int, ...]) -> None:
        widths = [layers[0][0].shape[1], *(len(bias) for _, bias in layers)]
        if [weight.shape for weight, _ in layers] != list(zip(widths[1:], widths[:-1], strict=True)):
            raise ValueError(f"layers must fit each other, got shapes {[weight.shape for weight, _ in layers]}")
        if widths[-1] != sum(sizes):
            raise ValueError(
                f"the last layer must have {sum(sizes)} outputs for knobs of {sizes} levels, got {widths[-1]}"
            )
        self.layers = layers
        self.num_features = widths[0]
        self._splits = np.cumsum(sizes)[:-1]

    @classmethod
    def from_state(cls, state: Mapping[str, Any], sizes: tuple[int, ...]) -> Self:
        """The network of a policy's `state_dict`.

        Raises:
            ValueError: if it is not the state of an MLP policy over these knobs.
        """
        prefix, last = "mlp_extractor.policy_net.", ["action_net"]
        if any(key.startswith("q_net.") for key in state):
            prefix, last = "q_net.q_net.", []
        hidden = sorted({int(key.removeprefix(prefix).split(".")[0]) for key in state if key.startswith(prefix)})
        names = [f"{prefix}{k}" for k in hidden] + last
        try:
            layers = [
                tuple(state[f"{name}.{part}"].cpu().numpy().copy() for part in ("weight", "bias")) for name in names
            ]
        except KeyError as error:
            raise ValueError(f"state must be that of an MLP policy with {error}, got only {sorted(state)}") from None
        return cls(layers, sizes)

    def __call__(self, observation: np.ndarray) -> list[int]:
        """The most probable level of each knob, or the best arm."""
        values = observation
        for weight, bias in self.layers[:-1]:
            values = np.tanh(weight @ values + bias)
        weight, bias = self.layers[-1]
        return [int(logits.argmax()) for logits in np.split(weight @ values + bias, self._splits)]

    @property
    def digest(self) -> str:
        """A digest of all weights."""
        digest = hashlib.sha256(repr(self._splits.tolist()).encode())
        for array in (array for layer in self.layers for array in layer):
            digest.update(repr(array.shape).encode() + array.tobytes())
        return digest.hexdigest()


class PolicyController:
    """Sets the parameters of `llmsched_env.envs.batch_queue.parametric` by a policy; implements `Controller`.

    Args:
        network: observation to levels.
        knobs: what the levels, or arms of them, mean.
        interval: time between decisions, s; None decides before every batch.
    """

    def __init__(self, network: PolicyNetwork, knobs: Knobs | Arms, interval: float | None) -> None:
        self.network = network
        self.knobs = knobs
        self.interval = interval
        self._observer = Observer(OBSERVATION)

    def fresh(self, engine: EngineConfig) -> "PolicyController":
        return PolicyController(self.network, self.knobs, self.interval)

    def decide(self, view: View) -> np.ndarray:
        levels = np.array(self.network(self._observer.observe(view)))
        return self.knobs.params(levels.reshape(self.knobs.space.shape))

    @property
    def digest(self) -> str:
        """Changes with anything that decides: weights, levels, interval."""
        return hashlib.sha256(repr((self.network.digest, self.knobs, self.interval)).encode()).hexdigest()
