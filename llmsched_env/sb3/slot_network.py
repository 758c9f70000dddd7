"""NumPy inference of the policy that scores every slot of `llmsched/RequestSelection-v0` alike, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Space

from llmsched_env.sb3.scorer_network import ScorerNetwork, with_biases

PREFERENCE = "mlp_extractor.preference"
"""The name by which the weights of such a policy are known."""
_NAMES = ("preference", *with_biases(("around.0", "score.0", "score.2", "done")))


def _shapes(found: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    hidden, of_all, of_slot = found[1][0], found[1][-1], found[0][0] - 1
    return [
        (of_slot + 1,), (hidden, of_all), (hidden,), (hidden, hidden + of_slot), (hidden,), (1, hidden), (1,),
        (1, hidden), (1,),
    ]  # fmt: skip


class SlotNetwork(ScorerNetwork):
    """What decides in such a policy: a score for each slot, from its features and those of the engine and the batch.

    Args:
        state: the `state_dict` of the policy.
        space: of its actions, `Discrete(slots + 1)`.

    Raises:
        ValueError: if the weights are not those of such a policy, or not finite.
    """

    over = "slots"

    def __init__(self, state: Mapping[str, np.ndarray], space: Space[Any]) -> None:
        super().__init__(state, _NAMES, space, _shapes)
        preference, around = self._arrays[:2]
        self._of_slot, self._of_all = len(preference) - 1, around.shape[1]
        self.num_features = self._of_all + self._of_slot * (int(space.n) - 1)  # type: ignore[attr-defined]

    def logits(self, observation: np.ndarray) -> np.ndarray:
        """Of the slots, and of "done"."""
        preference, around, around_bias, score, score_bias, last, last_bias, done, done_bias = self._arrays
        slots = observation[self._of_all :].reshape(-1, self._of_slot)
        context = np.tanh(around @ observation[: self._of_all] + around_bias)
        of_context = score[:, : len(context)] @ context + score_bias
        units = np.tanh(slots @ score[:, len(context) :].T + of_context)
        scores = units @ last[0] + last_bias + slots @ preference[:-1]
        return np.append(scores, done @ context + done_bias + preference[-1])
