"""Results from theory that simulations are compared with."""

from llmsched_env.theory.capacity import capacity, load

__all__ = ["capacity", "load"]
