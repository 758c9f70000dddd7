"""Learning to schedule: training with Stable-Baselines3, and trained agents as schedulers."""

from agents.checkpoint import AgentMeta, load_agent, read_meta, save_agent
from agents.controller import PolicyController

__all__ = ["AgentMeta", "PolicyController", "load_agent", "read_meta", "save_agent"]
