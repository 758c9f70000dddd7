"""What an agent is trained for, under the names that tuning and evaluation use."""

from llmsched_env.envs.rewards import ENGINE_REWARDS
from llmsched_env.objectives import OBJECTIVES as _ALL

REWARDS = {reward.objective: reward.name for reward in ENGINE_REWARDS if reward.objective is not None}
"""By objective, the reward of the environments that leads to it."""
OBJECTIVES = {name: _ALL[name] for name in REWARDS}
_OLDER_NAMES = {reward: objective for objective, reward in REWARDS.items()}


def objective_name(text: str) -> str:
    """The objective that a command line asks for; "latency" and "goodput", the names of the rewards, do as well."""
    return _OLDER_NAMES.get(text, text)
