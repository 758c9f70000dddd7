"""Workloads: arrivals, lengths, tasks of agents, traces and presets."""

from llmsched_env.tables.request_table import RequestTable
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.workloads import delays, dist
from llmsched_env.workloads.agent_tasks import AgentTasks, TaskKind
from llmsched_env.workloads.arrivals import MMPP, Diurnal, Gamma, Poisson, Ticks, Weibull, Windows
from llmsched_env.workloads.clients import Client, Lengths
from llmsched_env.workloads.closed_loop import ClosedLoop
from llmsched_env.workloads.predictors import LengthPredictor
from llmsched_env.workloads.presets import preset
from llmsched_env.workloads.rybko_stolyar import rybko_stolyar
from llmsched_env.workloads.task_graphs import CallLaw, Chain, ForkJoin, Graph, SubAgents, route
from llmsched_env.workloads.task_presets import task_preset
from llmsched_env.workloads.task_sources import FixedTasks, ReplayedTasks, SingleCalls, TaskSource
from llmsched_env.workloads.traces import load_tasks, load_trace
from llmsched_env.workloads.workload import Workload

__all__ = [
    "MMPP",
    "AgentTasks",
    "CallLaw",
    "Chain",
    "Client",
    "ClosedLoop",
    "Diurnal",
    "FixedTasks",
    "ForkJoin",
    "Gamma",
    "Graph",
    "LengthPredictor",
    "Lengths",
    "Poisson",
    "ReplayedTasks",
    "RequestTable",
    "SingleCalls",
    "SubAgents",
    "TaskKind",
    "TaskSource",
    "TaskTable",
    "Ticks",
    "Weibull",
    "Windows",
    "Workload",
    "delays",
    "dist",
    "load_tasks",
    "load_trace",
    "preset",
    "route",
    "rybko_stolyar",
    "task_preset",
]
