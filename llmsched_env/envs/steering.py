"""What an agent sees of an engine and sets in it: all of an environment that a trained policy depends on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llmsched_env.envs.actions import Actions
from llmsched_env.envs.features import Observation
from llmsched_env.validation import check_number


@dataclass(frozen=True, slots=True)
class Steering:
    """What an agent sees and sets, and when.

    Attributes:
        actions: what an action means.
        observation: what an agent sees.
        interval: s between decisions; None: before every batch, or whenever the scheduler asks for a choice.
        masks: a function of observations (f4[..., features]) and the number of requests in the batch under construction
            (i8[...]): i1[..., n], 1 for each of n actions that is allowed. None: all actions are, always.

    Raises:
        ValueError: if the interval is not above 0.
    """

    actions: Actions
    observation: Observation
    interval: float | None = None
    masks: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    def __post_init__(self) -> None:
        if self.interval is not None:
            check_number("decision_interval", self.interval, above=0, unit="s")

    @property
    def features(self) -> tuple[str, ...]:
        """The names of what an agent sees."""
        return tuple(feature.name for feature in self.observation.features)
