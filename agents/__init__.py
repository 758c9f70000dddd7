"""Learning to schedule: training, and trained agents as schedulers."""

from agents.learned_policies import load_steered
from agents.sb3.checkpoint import AgentMeta, load_agent, read_meta, save_agent
from agents.sb3.controller import PolicyController

__all__ = ["AgentMeta", "PolicyController", "load_agent", "load_steered", "read_meta", "save_agent"]
