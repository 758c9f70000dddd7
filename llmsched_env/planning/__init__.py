"""Capacity planning: how many replicas of which GPU a workload needs, and what they cost."""

from llmsched_env.planning.plan import Plan, plan
from llmsched_env.planning.sizing import Option, Point, Sizing, size

__all__ = ["Option", "Plan", "Point", "Sizing", "plan", "size"]
