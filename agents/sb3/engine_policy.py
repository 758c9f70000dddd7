"""The policy of `llmsched/Cluster-v1`: one network scores every engine, so it serves any number of them."""

from collections.abc import Callable
from typing import Any

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from llmsched_env.envs.cluster_features import OF_ARRIVALS, OF_OUTLOOK, OF_PREDICTED_CALL

PER_ENGINE, OF_ALL = len(OF_OUTLOOK), len(OF_PREDICTED_CALL) + len(OF_ARRIVALS)
_NAMES=[f.name for f in OF_OUTLOOK]
_D=[_NAMES.index(n) for n in ('prefill_outstanding_ms','call_prefill_ms','call_decode_ms')]
import math
_S=math.log1p(1e6)


class EngineScorer(nn.Module):
    """One network computes the logit of each engine from its features, their means over all, the call and the network.

    Args:
        features: of an observation.
        hidden: units of its layers.
        rule: at the start the logits are -`rule` times the logarithm of the predicted seconds of a call on an engine,
            which is learned like all else; with 0 the policy starts out indifferent, and it is no part of the policy.
    """

    def __init__(self, features: int, hidden: int, rule: float) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = (features - OF_ALL) // PER_ENGINE, hidden
        inputs = 2 * PER_ENGINE + OF_ALL
        self.score = nn.Sequential(
            nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
        )
        self.state = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.use_rule = rule > 0
        self.rule = nn.Parameter(torch.tensor(rule), requires_grad=rule > 0)
        last = self.score[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [batch, engines] and what the value is computed from [batch, hidden]."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """Logits of the engines."""
        scores: torch.Tensor = self.score(self._inputs(features))[:, :, 0]
        return scores - self.rule * torch.log(1.0+torch.expm1(self._engines(features)[:,:,_D]*_S).sum(2)) if self.use_rule else scores

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        """What the value is computed from: the sum over engines, as what they cost adds up."""
        values: torch.Tensor = self.state(self._inputs(features)).sum(dim=1)
        return values

    def _engines(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, :-OF_ALL].reshape(len(features), -1, PER_ENGINE)

    def _inputs(self, features: torch.Tensor) -> torch.Tensor:
        engines = self._engines(features)
        shared = torch.cat([engines.mean(dim=1), features[:, -OF_ALL:]], dim=1)
        return torch.cat([engines, shared[:, None, :].expand(-1, engines.shape[1], -1)], dim=2)


class EnginePolicy(ActorCriticPolicy):
    """An `ActorCriticPolicy` whose logits are those of an `EngineScorer`."""

    def __init__(self, *args: Any, hidden: int = 32, rule: float = 0.0, **kwargs: Any) -> None:
        self._scorer = (hidden, rule)
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        hidden, rule = self._scorer
        return super()._get_constructor_parameters() | {"hidden": hidden, "rule": rule}

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        scorer = EngineScorer(self.features_dim, *self._scorer)
        self.mlp_extractor = scorer  # type: ignore[assignment]  # it has the same methods
        self.action_net = nn.Identity()
        self.value_net = nn.Linear(scorer.latent_dim_vf, 1)
        self.optimizer = self.optimizer_class(self.parameters(), **({"lr": lr_schedule(1)} | self.optimizer_kwargs))
