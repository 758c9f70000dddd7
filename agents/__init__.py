"""Learning to schedule: training, and trained agents as schedulers."""

from agents.checkpoint import AgentMeta, load_agent, read_meta, save_agent
from agents.controller import PolicyController
from agents.steered import load_steered

__all__ = ["AgentMeta", "PolicyController", "load_agent", "load_steered", "read_meta", "save_agent"]
