"""Results from queueing theory and optimisation: capacity, load, stability regions and latency bounds."""

from llmsched_env.theory.capacity import capacity, load, task_capacity
from llmsched_env.theory.fluid import FluidSolution, fluid_capacity
from llmsched_env.theory.gate import GatePlan, gate_plan
from llmsched_env.theory.hindsight import Hindsight, SlottedRequests, hindsight_optimum, lp_bound, volume_bound
from llmsched_env.theory.kv import kv_capacity, kv_token_steps, memory_demand, volume
from llmsched_env.theory.latency_bounds import makespan_bound, mean_latency_bound
from llmsched_env.theory.network import Route, VirtualStation, Visit, engine_loads, virtual_stations
from llmsched_env.theory.polygon import Region, stability_region, theorem10
from llmsched_env.theory.rates import best_token_rate, critical_rate, token_rate
from llmsched_env.theory.slo_bound import least_misses, slo_attainment_bound
from llmsched_env.theory.srpt import mg1_srpt, srpt_flow_times
from llmsched_env.theory.work import Work, mean_work

__all__ = [
    "FluidSolution",
    "GatePlan",
    "Hindsight",
    "Region",
    "Route",
    "SlottedRequests",
    "VirtualStation",
    "Visit",
    "Work",
    "best_token_rate",
    "capacity",
    "critical_rate",
    "engine_loads",
    "fluid_capacity",
    "gate_plan",
    "hindsight_optimum",
    "kv_capacity",
    "kv_token_steps",
    "least_misses",
    "load",
    "lp_bound",
    "makespan_bound",
    "mean_latency_bound",
    "mean_work",
    "memory_demand",
    "mg1_srpt",
    "slo_attainment_bound",
    "srpt_flow_times",
    "stability_region",
    "task_capacity",
    "theorem10",
    "token_rate",
    "virtual_stations",
    "volume",
    "volume_bound",
]
