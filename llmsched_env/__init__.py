"""Simulate, schedule and learn to schedule the batches of an LLM inference engine."""

from llmsched_env import envs, theory
from llmsched_env.profiles import GPUProfile, gpu_profile, gpu_profiles
from llmsched_env.simulator.batch_time import Hinge, Roofline, Staircase
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.primitives import (
    ALL,
    chunk,
    chunks,
    decodes,
    evict,
    is_decoding,
    lower_token_limit,
    memory_for_prompt,
    preempt,
    prefill_left,
    prompt_pending,
    reject,
    reserve,
    seats_left,
    take,
    tokens_left,
    untake,
    usable,
    whole_prompts,
)
from llmsched_env.simulator.random import uniform
from llmsched_env.simulator.records import Result
from llmsched_env.simulator.scheduler import Controller, Param, Scheduler
from llmsched_env.simulator.simulate import simulate, simulate_many
from llmsched_env.slo import SLO
from llmsched_env.workloads import MMPP, Poisson, RequestTable, Workload, dist, load_trace, preset

__version__ = "0.1.0"

__all__ = [
    "ALL",
    "MMPP",
    "SLO",
    "Controller",
    "EngineConfig",
    "GPUProfile",
    "Hinge",
    "Param",
    "Poisson",
    "RequestTable",
    "Result",
    "Roofline",
    "Scheduler",
    "Staircase",
    "Workload",
    "chunk",
    "chunks",
    "decodes",
    "dist",
    "envs",
    "evict",
    "gpu_profile",
    "gpu_profiles",
    "is_decoding",
    "load_trace",
    "lower_token_limit",
    "memory_for_prompt",
    "preempt",
    "prefill_left",
    "preset",
    "prompt_pending",
    "reject",
    "reserve",
    "seats_left",
    "simulate",
    "simulate_many",
    "take",
    "theory",
    "tokens_left",
    "uniform",
    "untake",
    "usable",
    "whole_prompts",
]
