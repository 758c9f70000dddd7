"""The common setting of the experiments of arXiv 2504.07347."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from types import MappingProxyType

import baselines
import llmsched_env as ls

LAW = ls.Staircase(c=0.01128, a=0.03547, b0=128)
"""CodeLlama-34B on one A100-80GB, section 2.3: 46.75 ms up to 128 tokens, 153.16 ms at 512."""

FOUR: Mapping[str, ls.Scheduler] = MappingProxyType(
    {
        "Sarathi": baselines.sarathi,
        "Orca": baselines.orca,
        "vLLM (2023)": baselines.vllm_prefill_first,
        "FasterTransformer": baselines.fastertransformer,
    }
)
"""The schedulers of Table 1, by the names that the pictures use."""

PER_MS = 1e-3
"""Tokens/s to tokens/ms, the unit of the paper."""


def engine(token_budget: int, max_num_seqs: int | None = None) -> ls.EngineConfig:
    """The paper's machine: every output token takes a decode batch, memory has no limit."""
    return ls.EngineConfig(LAW, token_budget=token_budget, max_num_seqs=max_num_seqs, first_token="separate")


def run_seeds(
    scheduler: ls.Scheduler,
    workload: ls.Workload,
    machine: ls.EngineConfig,
    seeds: int,
    horizon: float,
    record: str = "batches",
) -> list[ls.Result]:
    """Runs of seeds 0, 1, ... up to `horizon`, without warnings of stalls: the results show them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* stalled at ", RuntimeWarning)
        return ls.simulate_many(
            scheduler, workload, machine, range(seeds), horizon, record, progress=sys.stderr.isatty()
        )
