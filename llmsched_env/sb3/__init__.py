"""Stable-Baselines3: our vector environments as it sees them, and its trained policies without it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmsched_env.sb3.mlp import MLP
    from llmsched_env.sb3.policy_file import PolicyDescription, read_description, read_network, save_policy
    from llmsched_env.sb3.vec_env import SB3VecEnv

_MODULES = {
    "MLP": "mlp",
    "PolicyDescription": "policy_file",
    "SB3VecEnv": "vec_env",
    "read_description": "policy_file",
    "read_network": "policy_file",
    "save_policy": "policy_file",
}

__all__ = ["MLP", "PolicyDescription", "SB3VecEnv", "read_description", "read_network", "save_policy"]


def __getattr__(
    name: str,
) -> Any:  # imported on first use: SB3VecEnv needs torch, which takes seconds; the others don't
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
