"""What the benchmark is asked for. Imports nothing of the simulator, so that the command line is quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

STAGES = ("tune", "test", "random", "azure", "cluster", "networks", "routers", "report")

SCREENED = (
    *("vllm_v1", "sarathi", "slo_first", "slos_serve", "qoserve", "slai", "edf", "least_slack", "srpt_predicted"),
    *("trail", "ssjf", "learning_to_rank", "sola"),
)
"""The default baselines: two plain systems, and rules by deadline, slack, length and prediction."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is judged, against what, and how much of it.

    Attributes:
        stage: "all" or one of `STAGES`; earlier stages must have run, or run as far as it needs them.
        objective: of the comparison.
        policies: by objective, a scheduler as `naming.scheduler_by_name` reads it; None: the pretrained ones.
        scheduler: names of the baselines to screen, tune and choose from; "all": every registered one for a single
            engine.
        beside: names of schedulers that were written after a policy: tested with it, but no baselines.
        load: of every site.
        cells: of the suite, spread over it; None: all.
        trials: settings of each baseline that is tuned; half of them for p99_ttft.
        index_trials: settings of the static index policy: its defaults, the constants of the policy, draws around them.
        tuning_seeds: that they are tuned on.
        seeds: test seeds of each cell.
        random_sites: drawn at random, unseen in development, the loads in turn.
        sites_from: number of the first of them. Sites that a policy was changed after are no longer unseen: the next
            look takes others, as 40 after 0 to 39.
        clusters: spread over those of the suite; None: all.
        network_runs: held-out runs of each scheduler of the agent network.
        router_seeds: test seeds of each cluster of the comparison of routers.
        traces: folder of the slices of the Azure trace; None: the folder azure_2023 of the environment variable
            LLMSCHED_TRACES, without which they are left out.
        quick: a short run of everything: `in_short`.
        out: folder of the report and of all runs.
    """

    stage: str = "all"
    objective: tuple[str, ...] = ("slo_attainment", "mean_e2el", "p99_ttft")
    policies: Mapping[str, str] | None = None
    scheduler: tuple[str, ...] = SCREENED
    beside: tuple[str, ...] = ()
    load: tuple[float, ...] = (0.5, 0.8, 0.95, 1.1)
    cells: int | None = None
    trials: int = 32
    index_trials: int = 32
    tuning_seeds: int = 3
    seeds: int = 24
    random_sites: int = 40
    sites_from: int = 0
    clusters: int | None = None
    network_runs: int = 40
    router_seeds: int = 10
    traces: Path | None = None
    quick: bool = False
    out: Path = Path("runs/benchmark")

    def in_short(self) -> BenchmarkOptions:
        """A short run of everything: a few cells, trials and seeds, and no traces."""
        few = {"cells": 2, "trials": 4, "index_trials": 8, "tuning_seeds": 2, "seeds": 3, "random_sites": 2}
        return replace(self, **few, clusters=1, network_runs=2, router_seeds=2)  # type: ignore[arg-type]
