"""The benchmark suite: the workloads, engines and loads on which learned schedulers are trained and tested.

Version 1. A site is a workload with its targets on an engine. Sites of `HELD_OUT` are never trained on. On sites of
`TRAINING`, test seeds and training seeds are disjoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.objectives import share_within_limits
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulate import simulate
from llmsched_env.workloads import LengthPredictor, Workload, preset

VERSION = 1
HORIZON = 120.0  # s of arrivals
KENDALL = 0.56
"""Rank correlation of predicted and true output lengths, that of the learning-to-rank scheduler (arXiv 2408.15792);
every scheduler that uses predictions gets the same ones."""

H100, RTX4090, A100 = (
    "llama-3.1-8b_h100-80gb_tp1_aic",
    "llama-3.1-8b_rtx4090-24gb_tp1_lss",
    "qwen3-32b_a100-80gb_tp2_aic",
)
_ALONE = 0.98  # share of the requests of a site that must meet their targets when served alone


@dataclass(frozen=True, slots=True)
class Site:
    """A workload with its targets on an engine.

    Attributes:
        workload: name of a preset.
        slo: name of its targets.
        profile: of the engine.
    """

    workload: str
    slo: str
    profile: str

    @property
    def name(self) -> str:
        """What tables call it."""
        targets = "" if self.slo == "default" else f" ({self.slo})"
        return f"{self.workload}{targets} on {self.profile.split('_')[1]}"

    @property
    def engine(self) -> EngineConfig:
        """The machine."""
        return _engine(self.profile)

    def at(self, load: float, horizon: float = HORIZON) -> Workload:
        """The workload at a load, with predictions of output lengths."""
        workload = preset(self.workload, horizon=horizon, slo=self.slo).with_predictor(_predictor(self.workload))
        return workload.at_load(load, self.engine)

    def feasible(self, scheduler: Scheduler) -> bool:
        """Whether at least 98 % of the requests meet their targets when `scheduler` serves each alone."""
        return _alone(self, scheduler) >= _ALONE


@cache
def _engine(profile: str) -> EngineConfig:
    return EngineConfig.for_gpu(profile)


@cache
def _predictor(workload: str) -> LengthPredictor:
    return LengthPredictor.calibrated(preset(workload), kendall=KENDALL)


@cache
def _alone(site: Site, scheduler: Scheduler) -> float:
    table = site.at(0.5).sample(0).rows(0, 400)
    apart = table.at(1e4 * np.arange(len(table)))  # s between arrivals: longer than any request stays
    rows = simulate(scheduler, Workload.from_table(apart, site.name), site.engine, record="requests").requests
    return share_within_limits(rows)


TRAINING = (
    Site("azure-chat", "default", H100),
    Site("azure-chat", "strict", H100),
    Site("sharegpt-chat", "default", H100),
    Site("bursty-api", "default", H100),
    Site("arxiv-summarize", "strict", H100),
    Site("mooncake-tool-agent", "strict", H100),
    Site("azure-chat", "default", RTX4090),
    Site("sharegpt-chat", "relaxed", RTX4090),
    Site("bursty-api", "default", RTX4090),
    Site("azure-chat", "relaxed", A100),
    Site("sharegpt-chat", "relaxed", A100),
)
HELD_OUT = (
    Site("azure-code", "default", H100),
    Site("reasoning-r1", "default", H100),
    Site("multi-tenant", "default", H100),
    Site("coding-agent", "default", H100),
    Site("swe-agent", "default", H100),
    Site("azure-code", "default", RTX4090),
    Site("multi-tenant", "default", RTX4090),
    Site("azure-chat", "relaxed", RTX4090),
    Site("bursty-api", "default", A100),
    Site("multi-tenant", "default", A100),
)
