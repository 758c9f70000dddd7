"""Capacity planning: how many replicas of which GPU a workload needs, and what they cost."""

from llmsched_env.planning.plan import FleetPlan, plan
from llmsched_env.planning.sizing import FleetPoint, Option, Sizing, size

__all__ = ["FleetPlan", "FleetPoint", "Option", "Sizing", "plan", "size"]
