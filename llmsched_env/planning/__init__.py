"""Capacity planning: how many replicas of which GPU a workload needs, and what they cost."""

from llmsched_env.planning.plan import FleetPlan, plan
from llmsched_env.planning.sizing import FleetPoint, Option, Sizing, size
from llmsched_env.planning.users import MostUsers, UserPoint, most_users

__all__ = ["FleetPlan", "FleetPoint", "MostUsers", "Option", "Sizing", "UserPoint", "most_users", "plan", "size"]
