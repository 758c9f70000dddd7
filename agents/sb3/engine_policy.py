"""The policy of `llmsched/Cluster-v1`: one network scores every engine, so it serves any number of them."""

import math

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from agents.sb3.scorer_policy import ScorerPolicy
from llmsched_env.envs.cluster_features import MS_SCALE, OF_ARRIVALS, OF_OUTLOOK, OF_PREDICTED_CALL
from llmsched_env.features import names

PER_ENGINE, OF_ALL = len(OF_OUTLOOK), len(OF_PREDICTED_CALL) + len(OF_ARRIVALS)
_PLACE = {name: place for place, name in enumerate(names(OF_OUTLOOK))}
COST_TERMS = {
    "prefill_outstanding_ms": 1.0,
    "call_prefill_ms": 1.0,
    "call_decode_ms": 1.0,
    "held_up_ms": 1.0,
    "decode_outstanding_ms": 0.01,
}
"""What the cost of an engine adds up, and how much of it at the start: as `least_outstanding_seconds`, and a hundredth
of the decode outstanding there."""
_CALLS = 50.0  # calls of an engine that the value network takes as 1


class EngineScorer(nn.Module):
    """One network computes the logit of each engine from its features, their means over all, the call and the network.

    A term of its own is -sharpness * log(sum of weight * ms), as the times of an engine add up and a network over their
    logarithms finds that hard to express. All of it is learned.

    Args:
        features: of an observation.
        hidden: units of its layers.
        sharpness: at the start; with 0 the policy starts out indifferent.
    """

    def __init__(self, features: int, hidden: int, sharpness: float) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = (features - OF_ALL) // PER_ENGINE, hidden + 7
        inputs = 2 * PER_ENGINE + OF_ALL
        self.score = nn.Sequential(
            nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
        )
        self.state = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.sharpness = nn.Parameter(torch.tensor(float(sharpness)))
        self.log_weights = nn.Parameter(torch.log(torch.tensor(list(COST_TERMS.values()))))
        self.terms: torch.Tensor  # [terms, features of an engine], 1 where a term is that feature
        self.register_buffer("terms", torch.zeros(len(COST_TERMS), PER_ENGINE))
        for term, name in enumerate(COST_TERMS):
            self.terms[term, _PLACE[name]] = 1.0
        last = self.score[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [batch, engines] and what the value is computed from [batch, latent_dim_vf]."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """Logits of the engines."""
        milliseconds = _unscaled(self._engines(features) @ self.terms.T, MS_SCALE)
        cost = 1.0 + milliseconds @ torch.exp(self.log_weights)
        scores: torch.Tensor = self.score(self._inputs(features))[:, :, 0]
        return scores - self.sharpness * torch.log(cost)

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        """What the value is computed from: a network, and sums over engines of what those there will have to wait."""
        latent: torch.Tensor = self.state(self._inputs(features)).mean(dim=1)
        engines = self._engines(features)
        waiting, running = (_unscaled(engines[:, :, _PLACE[name]], 4096.0) for name in ("waiting", "running"))
        calls = (waiting + running) / _CALLS
        prefill, decode = (
            _unscaled(engines[:, :, _PLACE[f"{phase}_outstanding_ms"]], MS_SCALE) / 1e3
            for phase in ("prefill", "decode")
        )
        crowded = decode * engines[:, :, _PLACE["kv_used"]]
        terms = [calls, prefill, decode, calls * prefill, calls * decode, 0.1 * prefill**2, crowded]
        return torch.cat([latent, 0.3 * torch.stack(terms, dim=2).sum(dim=1)], dim=1)

    def _engines(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, :-OF_ALL].reshape(len(features), -1, PER_ENGINE)

    def _inputs(self, features: torch.Tensor) -> torch.Tensor:
        engines = self._engines(features)
        shared = torch.cat([engines.mean(dim=1), features[:, -OF_ALL:]], dim=1)
        return torch.cat([engines, shared[:, None, :].expand(-1, engines.shape[1], -1)], dim=2)


def _unscaled(values: torch.Tensor, scale: float) -> torch.Tensor:
    """What a feature of this scale measured."""
    return torch.expm1(values * math.log1p(scale))


class EnginePolicy(ScorerPolicy, ActorCriticPolicy):  # type: ignore[misc]  # networks that do the same
    """An `ActorCriticPolicy` whose logits are those of an `EngineScorer`."""

    scorer, start = EngineScorer, "sharpness"
