"""Arms: a few settings of an environment's actions, among which an agent with discrete actions chooses."""

from collections.abc import Sequence

import numpy as np
from gymnasium.spaces import Discrete

from llmsched_env.envs.runner import Actions


class Arms:
    """A `Discrete` action that stands for one of these actions of another kind.

    Attributes:
        scheduler: what composes the batches.
        space: `Discrete(number of arms)`.
        sizes: (number of arms,), as the levels of a single knob.

    Args:
        actions: what the arms are actions of.
        settings: an action for each arm.

    Raises:
        ValueError: if there are none, or one is no action of that kind.
    """

    def __init__(self, actions: Actions, settings: Sequence[Sequence[float]]) -> None:
        if len(settings) == 0:
            raise ValueError("arms must hold one or more actions, got none")
        self._of, self._settings = actions, tuple(tuple(float(value) for value in setting) for setting in settings)
        for setting in self._settings:
            if not actions.space.contains(np.array(setting, actions.space.dtype)):
                raise ValueError(f"arms must hold actions of {actions.space}, got {setting}")
        self.scheduler = actions.scheduler
        self.sizes = (len(self._settings),)
        self.space = Discrete(len(self._settings))
        self._params = actions.params(np.array(self._settings, actions.space.dtype))

    def __repr__(self) -> str:
        return f"Arms({self._of!r}, {self._settings!r})"

    def params(self, actions: np.ndarray) -> np.ndarray:
        """f8[..., p]: the parameters that arms (i8[...]) set."""
        return self._params[np.asarray(actions)]


def actions_or_arms(actions: Actions, arms: Sequence[Sequence[float]] | None) -> Actions:
    """`actions` themselves, or arms of them if there are any."""
    return actions if arms is None else Arms(actions, arms)
