"""A policy as the controller of a scheduler: observe, decide, set parameters."""

import hashlib
from collections.abc import Callable
from threading import Lock
from typing import Any, Protocol

import numpy as np
from gymnasium.spaces import Box

from llmsched_env.envs.features import Observer
from llmsched_env.envs.steering import Steering
from llmsched_env.machine.config import EngineConfig
from llmsched_env.sb3.normalization import Normalization
from llmsched_env.simulator.world import View


class Policy(Protocol):
    """Chooses actions.

    Attributes:
        digest: changes with anything that decides; two policies of one digest may share stored runs.
    """

    @property
    def digest(self) -> str:
        """See above."""

    def __call__(self, observation: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """An action for an observation f4[features], one of those whose place in `mask` is 1."""


class PolicyController:
    """Sets the parameters of a scheduler by a policy; implements `Controller`.

    Args:
        policy: observation to action.
        steering: what the policy sees, and what its actions mean.
        normalization: of observations before the policy sees them; None: they are shown as they are.
    """

    def __init__(self, policy: Policy, steering: Steering, normalization: Normalization | None = None) -> None:
        self.policy, self.steering, self.normalization = policy, steering, normalization
        self.interval = steering.interval
        self._observer = Observer(steering.observation)

    def fresh(self, engine: EngineConfig) -> "PolicyController":
        return PolicyController(self.policy, self.steering, self.normalization)

    def decide(self, view: View) -> np.ndarray:
        steering = self.steering
        observation = self._observer.observe(view)
        masks = steering.masks
        mask = None if masks is None else masks(observation, view.batch.counts.num_seqs)
        if self.normalization is not None:
            observation = self.normalization(observation)
        return steering.actions.params(self.policy(observation, mask))

    @property
    def digest(self) -> str:
        """Changes with anything that decides: weights, normalisation, what actions mean, the interval."""
        steering, normal = self.steering, self.normalization
        what = (self.policy.digest, steering.features, steering.actions, steering.interval)
        return hashlib.sha256(repr((*what, None if normal is None else normal.digest)).encode()).hexdigest()


class FunctionPolicy:
    """A function of the user's as a policy; what it returns is checked at every call.

    Args:
        function: (observation) -> action, or (observation, mask) -> action if `masked`.
        masked: whether it takes the mask of allowed actions.
        steering: what actions must be.
        digest: changes with anything that decides.
        one_at_a_time: whether threads must take turns.
    """

    def __init__(
        self, function: Callable[..., Any], masked: bool, steering: Steering, digest: str, one_at_a_time: bool = False
    ) -> None:
        self.function, self.masked, self.space, self.digest = function, masked, steering.actions.space, digest
        self._lock = Lock() if one_at_a_time else None

    def __call__(self, observation: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        arguments = (observation, mask) if self.masked else (observation,)
        if self._lock is None:
            action = self.function(*arguments)
        else:
            with self._lock:
                action = self.function(*arguments)
        return self._checked(action)

    def _checked(self, action: Any) -> np.ndarray:
        given, space = np.asarray(action), self.space
        if isinstance(space, Box):  # actions beyond the bounds are clipped, as the environment does
            if given.shape == space.shape and np.isfinite(given).all():
                return given.astype(space.dtype)
        elif (
            given.shape == space.shape
            and (given == np.trunc(given)).all()
            and space.contains(given.astype(space.dtype))
        ):
            return given.astype(space.dtype)
        raise ValueError(f"the policy must return an element of {space}, got {action!r}")
