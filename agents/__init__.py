"""Learning to schedule: training, and trained agents as schedulers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.sb3.checkpoint import AgentMeta, load_agent, read_meta, save_agent
    from agents.sb3.controller import PolicyController

_MODULES = {
    "AgentMeta": "agents.sb3.checkpoint",
    "PolicyController": "agents.sb3.controller",
    "load_agent": "agents.sb3.checkpoint",
    "read_meta": "agents.sb3.checkpoint",
    "save_agent": "agents.sb3.checkpoint",
}

__all__ = ["AgentMeta", "PolicyController", "load_agent", "read_meta", "save_agent"]


def __getattr__(name: str) -> Any:  # imported on first use, since torch takes seconds
    if name not in _MODULES:
        raise AttributeError(f"module 'agents' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
