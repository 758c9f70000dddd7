"""The policy of `llmsched/RequestSelection-v0`: one network scores every slot."""

import torch
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from torch import nn

from agents.sb3.scorer_policy import ScorerPolicy
from llmsched_env.envs.features import NUM_FEATURES
from llmsched_env.envs.request_selection import BATCH_FEATURES, SLOT_FEATURES

_GLOBAL, _PER_SLOT = NUM_FEATURES + len(BATCH_FEATURES), len(SLOT_FEATURES)
_PROMPT = [feature.name for feature in SLOT_FEATURES].index("prompt_left")


class SlotScorer(nn.Module):
    """One network computes the logit of each slot, whatever its place (RLScheduler, H. Zhang et al., SC 2020).

    Args:
        features: of an observation.
        hidden: units of its layers.
        shortest_first: weight of a term that prefers short prompts, in logits for each unit of the feature
            `prompt_left`; with 0 the policy starts out indifferent.
    """

    def __init__(self, features: int, hidden: int, shortest_first: float) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = (features - _GLOBAL) // _PER_SLOT + 1, hidden
        self.around = nn.Sequential(nn.Linear(_GLOBAL, hidden), nn.Tanh())
        self.score = nn.Sequential(nn.Linear(hidden + _PER_SLOT, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.done = nn.Linear(hidden, 1)
        self.value = nn.Sequential(
            nn.Linear(_GLOBAL + 2 * _PER_SLOT, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.preference: torch.Tensor  # of a slot by its features, and of "done"
        self.register_buffer("preference", torch.zeros(_PER_SLOT + 1))
        self.preference[[_PROMPT, -1]] = -shortest_first
        for last in (self.score[-1], self.done):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [batch, slots + 1] and what the value is computed from [batch, hidden]."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """Logits of the slots and of "done"."""
        slots = self._slots(features)
        around = self.around(features[:, :_GLOBAL])
        everywhere = around[:, None, :].expand(-1, slots.shape[1], -1)
        scores = self.score(torch.cat([everywhere, slots], dim=2))[:, :, 0]
        scores = scores + slots @ self.preference[:-1]
        done = self.done(around) + self.preference[-1]
        return torch.cat([scores, done], dim=1)

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        """What the value is computed from: the engine, the mean and the sum over slots."""
        slots = self._slots(features)
        values: torch.Tensor = self.value(
            torch.cat([features[:, :_GLOBAL], slots.mean(dim=1), 0.25 * slots.sum(dim=1)], dim=1)
        )
        return values

    def _slots(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, _GLOBAL:].reshape(len(features), -1, _PER_SLOT)


class SlotPolicy(ScorerPolicy, MaskableActorCriticPolicy):  # type: ignore[misc]  # networks that do the same
    """A `MaskableActorCriticPolicy` whose logits are those of a `SlotScorer`."""

    scorer, start = SlotScorer, "shortest_first"
