"""What networks that score every choice alike have in common, without torch: weights, masks, the greatest score."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Discrete, Space


class ScorerNetwork(ABC):
    """What decides in a policy that scores every choice by one network.

    An instance is not changed by calls, so threads may share it.

    Attributes:
        space: of its actions.
        num_features: of an observation.

    Args:
        state: the `state_dict` of the policy.
        names: of its weights, without what stands before all of them.
        space: of its actions, `Discrete`.
        shapes: from the shapes of these weights to those that fit each other.

    Raises:
        ValueError: if the weights are not those of such a policy, or not finite.
    """

    over: ClassVar[str]
    """What is scored, for messages."""
    num_features: int

    def __init__(
        self,
        state: Mapping[str, np.ndarray],
        names: Sequence[str],
        space: Space[Any],
        shapes: Callable[[list[tuple[int, ...]]], list[tuple[int, ...]]],
    ) -> None:
        if not isinstance(space, Discrete):
            raise ValueError(f"space must be Discrete, got {space}")
        self.space = space
        try:
            self._arrays = [np.array(state[f"mlp_extractor.{name}"], np.float32) for name in names]
        except KeyError as error:
            raise ValueError(f"its weights must be those of a policy over {self.over}, {error} is missing") from None
        found = [array.shape for array in self._arrays]
        if found != (wanted := shapes(found)):
            raise ValueError(f"its layers must be of shapes {wanted}, got {found}")
        if not all(np.isfinite(array).all() for array in self._arrays):
            raise ValueError("its weights must be finite numbers, got nan or inf")

    @abstractmethod
    def logits(self, observation: np.ndarray) -> np.ndarray:
        """f4[n]: of each choice, for an observation f4[features]."""

    def __call__(self, observation: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """The most probable choice, as an array of no dimension.

        Args:
            observation: f4[features].
            mask: [n], the choices that are allowed; None: all.
        """
        logits = self.logits(observation)
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


def with_biases(layers: Sequence[str]) -> list[str]:
    """The names of the weight and the bias of each layer."""
    return [f"{name}.{part}" for name in layers for part in ("weight", "bias")]
