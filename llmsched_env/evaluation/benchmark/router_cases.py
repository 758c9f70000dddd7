"""The random clusters that routers are trained and validated on, and the cost of a run.

A cluster serves one model on equal or different GPUs. It has a workload, a load, and an error of predicted lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

import baselines
from llmsched_env.evaluation.cases import SEED_BLOCK, TRAINING_SEEDS, TUNING_SEEDS, map_cases
from llmsched_env.machine.config import EngineConfig
from llmsched_env.results.metrics import within_limits
from llmsched_env.results.records import NetworkResult
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.theory import capacity
from llmsched_env.workloads import LengthPredictor, preset

SMALL = {gpu: f"llama-3.1-8b_{gpu}_tp1_aic" for gpu in ("h100-80gb", "h200-141gb", "a100-80gb", "l40s-48gb")} | {
    gpu: f"llama-3.1-8b_{gpu}_tp1_lss" for gpu in ("rtxpro6000-96gb", "rtx4090-24gb")
}
"""Profiles of Llama-3.1-8B by GPU."""
LARGE = {
    "h100-80gb": "qwen3-32b_h100-80gb_tp2_aic",
    "h200-141gb": "qwen3-32b_h200-141gb_tp2_aic",
    "a100-80gb": "qwen3-32b_a100-80gb_tp2_aic",
    "l40s-48gb": "qwen3-32b_l40s-48gb_tp4_aic",
}
"""Those of Qwen3-32B."""
REUSED = ("mooncake-tool-agent", "swe-agent", "coding-agent")
"""Workloads whose prompts begin with earlier ones: engines cache prefixes. They are long, for large memories only."""
TRAINED = (
    "azure-chat", "sharegpt-chat", "bursty-api", "swe-agent", "mooncake-tool-agent", "arxiv-summarize", "azure-chat",
    "sharegpt-chat",
)  # fmt: skip
"""Workloads of a generation, in this order: a case each."""
SCHEDULER = baselines.vllm_v1
"""On every engine."""
OBJECTIVES = ("mean_e2el", "slo_attainment")

_ENGINES = (2, 6)  # fewest and most of a random cluster
_EQUAL = 0.4  # share of random clusters of equal GPUs
_LARGE = 0.25  # share of those of the larger model
_WITHOUT_PREDICTIONS = 0.2  # share without predicted lengths


@dataclass(frozen=True, slots=True)
class Cluster:
    """Engines behind a router, under a workload.

    Attributes:
        name: what tables call it.
        workload: name of a preset.
        profiles: GPU profiles of the engines.
        load: rate over the reference capacity of all engines, which counts every prompt token as computed.
        calls: about how many arrive.
        least: shortest time in which they arrive, s.
        log_sd: of the error of predicted lengths, see `LengthPredictor`; None: no predictions.
    """

    name: str
    workload: str
    profiles: tuple[str, ...]
    load: float
    calls: float = 1000.0
    least: float = 20.0
    log_sd: float | None = 0.6

    @property
    def engines(self) -> list[EngineConfig]:
        """The machines."""
        return [_engine(profile, self.workload in REUSED) for profile in self.profiles]

    def tasks(self, seed: int) -> TaskTable:
        """The calls of a seed, each a task of its own."""
        rate = self.load * sum(_capacity(profile, self.workload) for profile in self.profiles)
        workload = preset(self.workload, rate, max(self.least, self.calls / rate))
        if self.log_sd is not None:
            workload = workload.with_predictor(LengthPredictor(self.log_sd))
        return TaskTable.from_columns(workload.sample(seed))


RouterCase = tuple[Cluster, int]
"""(cluster, seed)."""


def random_cluster(rng: np.random.Generator, workload: str, loads: tuple[float, float]) -> Cluster:
    """Draw engines, a load and an error of predictions."""
    profiles = LARGE if rng.random() < _LARGE and workload not in REUSED else SMALL
    gpus = [gpu for gpu in profiles if workload not in REUSED or gpu not in ("l40s-48gb", "rtx4090-24gb")]
    count = int(rng.integers(_ENGINES[0], _ENGINES[1] + 1))
    kinds = 1 if rng.random() < _EQUAL else int(rng.integers(2, 4))
    picked = rng.choice(rng.choice(gpus, min(kinds, len(gpus)), replace=False), count)
    log_sd = None if rng.random() < _WITHOUT_PREDICTIONS else float(rng.uniform(0.3, 1.2))
    calls = 400.0 if workload in REUSED else 1000.0
    return Cluster(
        f"{workload} on {count} random engines", workload, tuple(profiles[gpu] for gpu in picked),
        float(rng.uniform(*loads)), calls, log_sd=log_sd,
    )  # fmt: skip


def generation_cases(seed: int, generation: int, loads: tuple[float, float]) -> list[RouterCase]:
    """Random clusters of a generation, on training seeds: one for each of `TRAINED`."""
    rng = np.random.default_rng([seed, 2, generation])
    return [
        (random_cluster(rng, workload, loads), int(TRAINING_SEEDS + rng.integers(SEED_BLOCK))) for workload in TRAINED
    ]


def validation_cases(loads: tuple[float, float], rounds: int) -> list[RouterCase]:
    """Fixed random clusters on tuning seeds: `rounds` for each of `TRAINED`."""
    rng = np.random.default_rng(TUNING_SEEDS)
    return [(random_cluster(rng, workload, loads), TUNING_SEEDS + k) for k in range(rounds) for workload in TRAINED]


def costs(routers: Sequence[Router], cases: Sequence[RouterCase], objective: str = "mean_e2el") -> np.ndarray:
    """f8[routers, cases]: mean time of calls in the system, s, or the share that miss a target; runs drain."""

    def run(router: Router, cluster: Cluster, tasks: TaskTable, seed: int) -> float:
        return cost(simulate_network(SCHEDULER, tasks, cluster.engines, router, seed, record="requests"), objective)

    drawn = ((cluster, cluster.tasks(seed), seed) for cluster, seed in cases)
    return np.array(map_cases(run, routers, drawn))


def cost(result: NetworkResult, objective: str) -> float:
    """Of one run. A call that an engine rejects for lack of memory counts as if it stayed to the end."""
    rows = result.requests
    if objective == "slo_attainment":
        good = within_limits(rows, None)
        assert good is not None, "calls have no targets"
        return 1.0 - float(good.mean())
    return float((np.where(np.isnan(rows.finish), result.end, rows.finish) - rows.arrival).mean())


@cache
def _engine(profile: str, prefix_caching: bool) -> EngineConfig:
    return EngineConfig.for_gpu(profile, prefix_caching=prefix_caching)


@cache
def _capacity(profile: str, workload: str) -> float:
    return capacity(_engine(profile, False), preset(workload))
