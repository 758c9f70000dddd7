"""NumPy inference of the policy that scores every engine of `llmsched/Cluster-v1` alike, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete, Space

TERMS = "mlp_extractor.terms"
"""The name by which the weights of such a policy are known."""
_LAYERS = ("score.0", "score.2", "score.4")
_LOG_SCALE = np.float32(np.log1p(1e6))  # of features in ms


class EngineNetwork:
    """What decides in such a policy: a score for each engine, from its features, their means, the call and the network.

    An instance is not changed by calls, so threads may share it.

    Args:
        state: the `state_dict` of the policy.
        space: of its actions, `Discrete(engines)`.

    Raises:
        ValueError: if the weights are not those of such a policy, or not finite.
    """

    def __init__(self, state: Mapping[str, np.ndarray], space: Space[Any]) -> None:
        if not isinstance(space, Discrete):
            raise ValueError(f"space must be Discrete, got {space}")
        self.space = space
        names = ["terms", "log_weights", "sharpness", *(f"{n}.{p}" for n in _LAYERS for p in ("weight", "bias"))]
        try:
            self._arrays = [np.array(state[f"mlp_extractor.{name}"], np.float32) for name in names]
        except KeyError as error:
            raise ValueError(f"its weights must be those of a policy over engines, {error} is missing") from None
        terms, first = self._arrays[0], self._arrays[3]
        of_engine, inputs, hidden = terms.shape[-1], first.shape[-1], len(first)
        shapes = [array.shape for array in self._arrays]
        wanted = [
            (len(terms), of_engine), (len(terms),), (), (hidden, inputs), (hidden,), (hidden, hidden), (hidden,),
            (1, hidden), (1,),
        ]  # fmt: skip
        if shapes != wanted or inputs <= 2 * of_engine:
            raise ValueError(f"its layers must be of shapes {wanted}, got {shapes}")
        if not all(np.isfinite(array).all() for array in self._arrays):
            raise ValueError("its weights must be finite numbers, got nan or inf")
        self._of_engine, self._of_all = of_engine, inputs - 2 * of_engine
        self.num_features = int(space.n) * of_engine + self._of_all

    def __call__(self, observation: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """The most probable engine, as an array of no dimension.

        Args:
            observation: f4[features].
            mask: [n], the allowed engines; None: all.
        """
        terms, log_weights, sharpness, first, first_bias, second, second_bias, last, last_bias = self._arrays
        engines, of_all = observation[: -self._of_all].reshape(-1, self._of_engine), observation[-self._of_all :]
        shared = first[:, self._of_engine :] @ np.concatenate([engines.mean(axis=0), of_all]) + first_bias
        units = np.tanh(engines @ first[:, : self._of_engine].T + shared)
        scores = np.tanh(units @ second.T + second_bias) @ last[0] + last_bias
        cost = 1.0 + np.expm1(engines @ terms.T * _LOG_SCALE) @ np.exp(log_weights)
        logits = scores - sharpness * np.log(cost)
        if mask is not None:
            logits = np.where(mask, logits, -np.inf)
        return np.asarray(logits.argmax())

    @property
    def digest(self) -> str:
        """Changes with anything that decides."""
        digest = hashlib.sha256(repr(self.space).encode())
        for array in self._arrays:
            digest.update(repr(array.shape).encode() + array.tobytes())
        return digest.hexdigest()
