"""NumPy inference of the policy that scores every slot of `llmsched/RequestSelection-v0` alike, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete, Space

PREFERENCE = "mlp_extractor.preference"
"""The name by which the weights of such a policy are known."""
_LAYERS = ("around.0", "score.0", "score.2", "done")


class SlotNetwork:
    """What decides in such a policy: a score for each slot, from its features and those of the engine and the batch.

    An instance is not changed by calls, so threads may share it.

    Args:
        state: the `state_dict` of the policy.
        space: of its actions, `Discrete(slots + 1)`.

    Raises:
        ValueError: if the weights are not those of such a policy, or not finite.
    """

    def __init__(self, state: Mapping[str, np.ndarray], space: Space[Any]) -> None:
        if not isinstance(space, Discrete):
            raise ValueError(f"space must be Discrete, got {space}")
        self.space = space
        try:
            arrays = [
                state[PREFERENCE],
                *(state[f"mlp_extractor.{n}.{p}"] for n in _LAYERS for p in ("weight", "bias")),
            ]
        except KeyError as error:
            raise ValueError(f"its weights must be those of a policy over slots, {error} is missing") from None
        self._arrays = [np.array(array, np.float32) for array in arrays]
        preference, around, _, score, _, last, _, done, _ = self._arrays
        hidden, of_slot = len(around), len(preference) - 1
        shapes = [array.shape for array in self._arrays]
        wanted = [
            (of_slot + 1,), (hidden, around.shape[-1]), (hidden,), (hidden, hidden + of_slot), (hidden,),
            (1, hidden), (1,), (1, hidden), (1,),
        ]  # fmt: skip
        if shapes != wanted:
            raise ValueError(f"its layers must be of shapes {wanted}, got {shapes}")
        if not all(np.isfinite(array).all() for array in self._arrays):
            raise ValueError("its weights must be finite numbers, got nan or inf")
        self._of_slot, self._of_all = of_slot, around.shape[1]
        self.num_features = self._of_all + of_slot * (int(space.n) - 1)

    def __call__(self, observation: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """The most probable action, as an array of no dimension.

        Args:
            observation: f4[features].
            mask: [n], the allowed actions; None: all.
        """
        preference, around, around_bias, score, score_bias, last, last_bias, done, done_bias = self._arrays
        slots = observation[self._of_all :].reshape(-1, self._of_slot)
        context = np.tanh(around @ observation[: self._of_all] + around_bias)
        of_context = score[:, : len(context)] @ context + score_bias
        units = np.tanh(slots @ score[:, len(context) :].T + of_context)
        scores = units @ last[0] + last_bias + slots @ preference[:-1]
        logits = np.append(scores, done @ context + done_bias + preference[-1])
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
