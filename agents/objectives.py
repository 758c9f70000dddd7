"""What an agent is trained for, under the names that tuning and evaluation use."""

from llmsched_env.objectives import OBJECTIVES as _ALL

REWARDS = {"mean_e2el": "latency", "slo_attainment": "goodput"}
"""By objective, the reward of the environments that leads to it.

The goodput reward counts the requests that meet their SLO; divided by those that arrive, that is the SLO attainment.
"""
OBJECTIVES = {name: _ALL[name] for name in REWARDS}
_OLDER_NAMES = {reward: objective for objective, reward in REWARDS.items()}


def objective_name(text: str) -> str:
    """The objective that a command line asks for; "latency" and "goodput", the names of the rewards, do as well."""
    return _OLDER_NAMES.get(text, text)
