"""Workloads: arrivals, lengths, traces and presets."""

from llmsched_env.workloads import dist
from llmsched_env.workloads.arrivals import MMPP, Poisson
from llmsched_env.workloads.presets import preset
from llmsched_env.workloads.table import RequestTable
from llmsched_env.workloads.traces import load_trace
from llmsched_env.workloads.workload import Workload

__all__ = ["MMPP", "Poisson", "RequestTable", "Workload", "dist", "load_trace", "preset"]
