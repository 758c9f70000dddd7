"""Actor-critic policies whose logits come from one network that scores every choice."""

from collections.abc import Callable
from typing import Any, ClassVar

from stable_baselines3.common.policies import BasePolicy
from torch import nn


class ScorerPolicy(BasePolicy):
    """What such policies have in common; stands before the actor-critic class of Stable-Baselines3 that it changes.

    Args:
        args: of that class.
        hidden: units of the layers of the scorer.
        kwargs: of that class, and the argument of the scorer that is called `start`: how strong the rule is that it
            begins with; 0 by default.
    """

    scorer: ClassVar[Callable[..., Any]]
    """Class of the network: of the number of features, `hidden` and `start`; it extracts both latents."""
    start: ClassVar[str]
    """Name of its argument that says how strong the rule is that it begins with."""

    def __init__(self, *args: Any, hidden: int = 32, **kwargs: Any) -> None:
        self._scorer = {"hidden": hidden, self.start: kwargs.pop(self.start, 0.0)}
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self._scorer

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        scorer = type(self).scorer(self.features_dim, **self._scorer)
        self.mlp_extractor = scorer
        self.action_net = nn.Identity()
        self.value_net = nn.Linear(scorer.latent_dim_vf, 1)
        self.optimizer = self.optimizer_class(self.parameters(), **({"lr": lr_schedule(1)} | self.optimizer_kwargs))
