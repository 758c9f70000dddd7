"""NumPy inference of the policy that scores every engine of `llmsched/Cluster-v1` alike, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Space

from llmsched_env.sb3.scorer_network import ScorerNetwork, with_biases

TERMS = "mlp_extractor.terms"
"""The name by which the weights of such a policy are known."""
_NAMES = ("terms", "log_weights", "sharpness", *with_biases(("score.0", "score.2", "score.4")))
_LOG_SCALE = np.float32(np.log1p(1e6))  # of features in ms


def _shapes(found: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    terms, of_engine, hidden, inputs = found[0][0], found[0][-1], found[3][0], found[3][-1]
    return [
        (terms, of_engine), (terms,), (), (hidden, max(inputs, 2 * of_engine + 1)), (hidden,), (hidden, hidden),
        (hidden,), (1, hidden), (1,),
    ]  # fmt: skip


class EngineNetwork(ScorerNetwork):
    """What decides in such a policy: a score for each engine, from its features, their means, the call and the network.

    Args:
        state: the `state_dict` of the policy.
        space: of its actions, `Discrete(engines)`.

    Raises:
        ValueError: if the weights are not those of such a policy, or not finite.
    """

    over = "engines"

    def __init__(self, state: Mapping[str, np.ndarray], space: Space[Any]) -> None:
        super().__init__(state, _NAMES, space, _shapes)
        terms, first = self._arrays[0], self._arrays[3]
        self._of_engine = terms.shape[1]
        self._of_all = first.shape[1] - 2 * self._of_engine
        self.num_features = int(space.n) * self._of_engine + self._of_all  # type: ignore[attr-defined]

    def logits(self, observation: np.ndarray) -> np.ndarray:
        """Of the engines."""
        terms, log_weights, sharpness, first, first_bias, second, second_bias, last, last_bias = self._arrays
        engines, of_all = observation[: -self._of_all].reshape(-1, self._of_engine), observation[-self._of_all :]
        shared = first[:, self._of_engine :] @ np.concatenate([engines.mean(axis=0), of_all]) + first_bias
        units = np.tanh(engines @ first[:, : self._of_engine].T + shared)
        scores = np.tanh(units @ second.T + second_bias) @ last[0] + last_bias
        cost = 1.0 + np.expm1(engines @ terms.T * _LOG_SCALE) @ np.exp(log_weights)
        return np.asarray(scores - sharpness * np.log(cost))
