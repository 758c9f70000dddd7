"""Workloads: arrivals, lengths, traces and presets."""

from llmsched_env.workloads import dist
from llmsched_env.workloads.arrivals import Gamma, Poisson, Weibull
from llmsched_env.workloads.clients import Client, Lengths
from llmsched_env.workloads.mmpp import MMPP
from llmsched_env.workloads.modulation import Diurnal, Ticks, Windows
from llmsched_env.workloads.presets import preset
from llmsched_env.workloads.table import RequestTable
from llmsched_env.workloads.traces import load_trace
from llmsched_env.workloads.workload import Workload

__all__ = [
    "MMPP",
    "Client",
    "Diurnal",
    "Gamma",
    "Lengths",
    "Poisson",
    "RequestTable",
    "Ticks",
    "Weibull",
    "Windows",
    "Workload",
    "dist",
    "load_trace",
    "preset",
]
