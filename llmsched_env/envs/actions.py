"""What the actions of an agent mean: parameters of a scheduler; and arms, a fixed list of such actions."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space

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


def checked_actions(actions: Any, space: Space[Any], leading: tuple[int, ...] = ()) -> np.ndarray:
    """Actions as an array of the shape (*leading, *space.shape) and the dtype of the space.

    Numbers of a `Box` may lie beyond its bounds, where they are clipped; they must be finite.

    Raises:
        ValueError: naming shape, dtype, or the first action that is none of the space.
    """
    try:
        given = np.asarray(actions)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"action must be an array, got {actions!r}: {error}") from None
    shape = (*leading, *(space.shape or ()))
    if given.shape != shape:
        raise ValueError(f"action must be of shape {shape}, got {given.shape}")
    numbers = given.dtype.kind in "fiub"
    finite = np.isfinite(given) if numbers else np.zeros(shape, bool)
    if not finite.all():
        raise ValueError(f"action must hold finite numbers, got {_first(given, ~finite)}")
    if isinstance(space, Box):
        return np.ascontiguousarray(given, space.dtype).reshape(shape)
    assert isinstance(space, Discrete | MultiDiscrete), "the environments have these three"
    highest = space.start + (space.n if isinstance(space, Discrete) else space.nvec) - 1
    wrong = (given < space.start) | (given > highest) | (given != np.trunc(given))
    if wrong.any():
        raise ValueError(f"action must hold whole numbers of {space}, got {_first(given, wrong)}")
    return np.ascontiguousarray(given, space.dtype).reshape(shape)


def _first(given: np.ndarray, wrong: np.ndarray) -> str:
    """The first of the numbers that are wrong, and where it stands."""
    place = tuple(int(k) for k in np.argwhere(wrong)[0])
    return f"{given[place]}" + (f" at {list(place)}" if place else "")


def actions_or_arms(actions: Actions, arms: Sequence[Sequence[float]] | None) -> Actions:
    """`actions`, or `Arms` over them where `arms` is given."""
    return actions if arms is None else Arms(actions, arms)
