"""What the actions of an agent mean: parameters of a scheduler; and arms, a fixed list of such actions."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from gymnasium.spaces import Discrete, Space

from llmsched_env.simulator.scheduler import Scheduler


class Actions(Protocol):
    """What the actions of an agent mean: parameters of a scheduler.

    Attributes:
        scheduler: composes the batches.
        space: of an action.
    """

    @property
    def scheduler(self) -> Scheduler:
        """Composes the batches."""

    @property
    def space(self) -> Space[Any]:
        """Of an action."""

    def params(self, actions: np.ndarray) -> np.ndarray:
        """f8[..., p]: the parameters of the scheduler that `actions` (of any leading shape) set."""


class Arms:
    """A fixed list of actions among which an agent with a discrete action chooses, as the arms of a bandit.

    Attributes:
        scheduler: composes the batches.
        space: `Discrete(number of arms)`.
        sizes: (number of arms,), as if they were the levels of a single knob.

    Args:
        actions: the kind of action that an arm stands for.
        settings: the action of each arm.

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
        return self._params.take(np.asarray(actions), axis=0)


def actions_or_arms(actions: Actions, arms: Sequence[Sequence[float]] | None) -> Actions:
    """`actions`, or `Arms` over them where `arms` is given."""
    return actions if arms is None else Arms(actions, arms)
