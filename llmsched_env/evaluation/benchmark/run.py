"""From the options of the benchmark to its stages: what is run, and the report of it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

import baselines
from baselines import routers
from llmsched_env.evaluation.benchmark import results
from llmsched_env.evaluation.benchmark.azure_traces import LOADS as TRACE_LOADS
from llmsched_env.evaluation.benchmark.baseline_search import TuningPlan
from llmsched_env.evaluation.benchmark.cell_runs import BENCHMARK_OBJECTIVES, BenchmarkCell, suite_cells
from llmsched_env.evaluation.benchmark.clusters import ClusterCell, cluster_cells
from llmsched_env.evaluation.benchmark.hand_written_rules import length_and_work, length_times_slack
from llmsched_env.evaluation.benchmark.network_cases import PRIORITIES, NetworkSetting
from llmsched_env.evaluation.benchmark.network_section import network_sections, run_networks
from llmsched_env.evaluation.benchmark.options import SCREENED, STAGES, BenchmarkOptions
from llmsched_env.evaluation.benchmark.report import write_benchmark
from llmsched_env.evaluation.benchmark.router_section import router_sections, run_routers
from llmsched_env.evaluation.benchmark.routers import CLUSTERS
from llmsched_env.evaluation.benchmark.sections import cluster_sections, random_sections, trace_sections
from llmsched_env.evaluation.benchmark.stages import Benchmark, read_azure, read_current_results, read_results
from llmsched_env.evaluation.benchmark.static_index import static_settings
from llmsched_env.evaluation.benchmark.statistics import RESAMPLES
from llmsched_env.evaluation.cases import TEST_SEEDS, TUNING_SEEDS, seed_range
from llmsched_env.evaluation.naming import scheduler_by_name
from llmsched_env.evaluation.random_sites import random_site
from llmsched_env.evaluation.run_cache import commit
from llmsched_env.evaluation.suite import H100, HELD_OUT, TRAINING, VERSION
from llmsched_env.machine.config import EngineConfig
from llmsched_env.policies import pretrained
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice, check_integer, check_number

T = TypeVar("T")

POLICIES = {"slo_attainment": "slo", "mean_e2el": "latency", "p99_ttft": "slo"}
PAUSING = {"slo_attainment": "slo_pausing", "mean_e2el": "latency_pausing"}
ADDITIONAL = {"slo_attainment": ("slo_pausing",), "mean_e2el": ("latency_pausing",)}
ALWAYS_TUNED = ("slo_first", "slos_serve", "qoserve")
FOUR_KNOBS = ("vllm_v1", "sarathi", "ssjf", "svf", "vtc")  # they order the waiting queue, never begun requests
REFERENCES = (
    "vllm_v1",
    "sarathi",
    "slo_first",
    "edf",
    "least_slack",
    "qoserve",
    "sola",
    "fair_batching",
    "slai",
    "slos_serve",
)
CLUSTER_DEFAULTS = (*ALWAYS_TUNED, "sarathi", "vllm_v1")
CLUSTER_ROUTER = "join_shortest_queue"
CLUSTER_ROUTERS = (
    "join_shortest_queue",
    "least_outstanding_tokens",
    "power_of_two",
    "round_robin",
    "llumnix",
    "br_0",
)
QUICK_HORIZON = 450.0  # s of a run of the network


def run_benchmark(options: BenchmarkOptions, command: str = "") -> Path | None:
    """Run the stages that the options ask for.

    Args:
        options: what is asked for.
        command: how it was asked for, for the report.

    Returns:
        The path of the report, if it was written.

    Raises:
        ValueError: naming the option, its value and what is allowed; before any work is done.
        FileNotFoundError: for a policy whose file is not there, or a report without results.
    """
    options = options.in_short() if options.quick else options
    stages = STAGES if check_choice("--stage", options.stage, ("all", *STAGES)) == "all" else (options.stage,)
    check_integer("--network-runs", options.network_runs, at_least=2)
    check_integer("--router-seeds", options.router_seeds, at_least=2)
    if {"tune", "test", "random", "azure", "cluster"} & set(stages):
        _simulate(options, stages)
    if "networks" in stages:
        _networks(options)
    if "routers" in stages:
        clusters = CLUSTERS[:1] if options.quick else CLUSTERS
        run_routers(pretrained.router(), options.router_seeds, options.out / "routers.json", clusters)
    return _report(options, command) if "report" in stages else None


def policies_of(options: BenchmarkOptions) -> dict[str, Scheduler]:
    """The policy of each objective.

    Raises:
        ValueError: for an objective that is not run, or an unknown policy.
        FileNotFoundError: for a file that is not there.
    """
    given = options.policies or {}
    for name in options.objective:
        check_choice("--objective", name, BENCHMARK_OBJECTIVES)
    for name in given:
        check_choice("objective of --policies", name, options.objective)
    return {name: scheduler_by_name(given.get(name, POLICIES[name])) for name in options.objective}


def traces_folder(options: BenchmarkOptions) -> Path | None:
    """The folder with slices of the Azure trace; None if there is none."""
    named = os.environ.get("LLMSCHED_TRACES")
    folder = options.traces or (Path(named) / "azure_2023" if named else None)
    return folder if folder is not None and folder.is_dir() else None


def single_engine_baselines(beside: Sequence[str], only: Sequence[str] = ()) -> dict[str, Scheduler]:
    """Registered schedulers for one engine that need no true lengths, without those `beside`; or `only` some of them.

    Raises:
        ValueError: for a name that is none of them.
    """
    found = {
        name: scheduler
        for name, scheduler in baselines.REGISTRY.items()
        if scheduler.needs_lengths != "true" and name not in beside and not _of_networks(scheduler)
    }
    for name in only:
        check_choice("--scheduler", name, tuple(found))
    return {name: scheduler for name, scheduler in found.items() if not only or name in only}


def oracles() -> dict[str, Scheduler]:
    """Registered schedulers that know the true lengths."""
    return {f"{n}, true lengths": s for n, s in baselines.REGISTRY.items() if s.needs_lengths == "true"}


def _report(options: BenchmarkOptions, command: str) -> Path:
    facts = [
        ("Suite", f"version {VERSION}: {len(TRAINING)} sites that policies train on, {len(HELD_OUT)} held out"),
        ("Seeds", f"tuning {TUNING_SEEDS} and on, {options.tuning_seeds} of them; test {TEST_SEEDS} and on"),
        (
            "Trials",
            f"{options.trials} settings of each tuned baseline, half of them for p99_ttft; "
            f"{options.index_trials} of the static index policy",
        ),
        ("Command", command),
        ("Commit", commit()),
        ("Date", time.strftime("%Y-%m-%d", time.gmtime())),
    ]
    more = [
        *random_sections(read_current_results(options.out / "random.json")),
        *trace_sections(read_azure(options.out / "azure.json")),
        *cluster_sections(read_current_results(options.out / "cluster.json")),
        *network_sections(options.out / "networks.json"),
        *router_sections(options.out / "routers.json"),
    ]
    return write_benchmark(read_results(options.out / "results.json"), more, options.out, facts)


def _simulate(options: BenchmarkOptions, stages: Sequence[str]) -> None:
    for name in ("trials", "index_trials", "tuning_seeds"):
        check_integer(f"--{name.replace('_', '-')}", getattr(options, name), at_least=1)
    check_integer("--seeds", options.seeds, at_least=2)
    for load in options.load:
        check_number("--load", load, above=0)
    beside = options.beside
    named = options.scheduler
    if named == SCREENED:
        named = tuple(name for name in named if name not in beside)
    chosen = single_engine_baselines(beside, () if named == ("all",) else named)
    objectives, policies = options.objective, policies_of(options)
    clusters = _clusters(options.clusters) if "cluster" in stages else []
    drawn = _random_cells(options.random_sites, options.sites_from, options.load) if "random" in stages else []
    run = Benchmark(
        cells=_cells(options.cells, options.load) if {"tune", "test"} & set(stages) else [],
        policies=policies,
        additional_policies={
            name: {other: scheduler_by_name(other) for other in ADDITIONAL.get(name, ())} for name in objectives
        },
        plan=TuningPlan(
            schedulers=chosen,
            always=[name for name in ALWAYS_TUNED if name in chosen],
            index={name: _statics(name, policies[name], options.index_trials) for name in objectives},
            seeds=seed_range(TUNING_SEEDS, options.tuning_seeds),
            trials={name: max(1, options.trials // (2 if name == "p99_ttft" else 1)) for name in objectives},
            four_knobs=[name for name in FOUR_KNOBS if name in chosen],
        ),
        references={name: baselines.get(name) for name in (*REFERENCES, *beside) if name in (*chosen, *beside)}
        | {"rule made after slo": length_times_slack, "rule made after latency": length_and_work}
        | oracles(),
        test_seeds=seed_range(TEST_SEEDS, options.seeds),
        folder=options.out,
        resamples=RESAMPLES,
    )
    if "tune" in stages or "test" in stages:
        found = run.tune()
        if "test" in stages:
            run.test(found)
    claimed = {name: policy for name, policy in policies.items() if name != "p99_ttft"}
    if drawn and claimed:
        on_random = replace(run, cells=drawn, policies=claimed)
        on_random.test(on_random.tune(), "random.json")
    if "azure" in stages and not options.quick:
        folder = traces_folder(options)
        if folder is not None:
            run.azure(folder, EngineConfig.for_gpu(H100), TRACE_LOADS)
        else:
            print("There is no folder with slices of the Azure trace: they are left out. See --traces.")
    if clusters:
        rivals = [chosen[name] for name in CLUSTER_DEFAULTS if name in chosen]
        run.cluster(clusters, rivals, routers.get(CLUSTER_ROUTER), [*map(routers.get, CLUSTER_ROUTERS)])


def _statics(objective: str, policy: Scheduler, count: int) -> dict[str, list[Scheduler]]:
    """Settings of the static index policy: around the policy, and around the one that may pause."""
    around = {results.INDEX: policy}
    if objective in PAUSING:
        around[results.PAUSING_INDEX] = scheduler_by_name(PAUSING[objective])
    return {name: static_settings(center, count) for name, center in around.items()}


def _networks(options: BenchmarkOptions) -> None:
    policy = pretrained.load(pretrained.NETWORK)
    setting = NetworkSetting(horizon=QUICK_HORIZON) if options.quick else NetworkSetting()
    run_networks({"the policy": policy} | PRIORITIES, setting, options.network_runs, options.out / "networks.json")


def _cells(count: int | None, loads: Sequence[float]) -> list[BenchmarkCell]:
    cells, left_out = suite_cells(baselines.sarathi(token_budget=16384), loads)
    for name in left_out:
        print(f"{name} is left out: its requests miss their targets even when each is served alone.")
    return _spread("--cells", count, cells)


def _random_cells(count: int, first: int, loads: Sequence[float]) -> list[BenchmarkCell]:
    """Sites that were never drawn in training or development: the generator starts at the test seeds."""
    check_integer("--random-sites", count, at_least=1)
    check_integer("--sites-from", first, at_least=0)
    cells = []
    for k in range(first, first + count):
        site, load = random_site(np.random.default_rng([TEST_SEEDS, k])), loads[k % len(loads)]
        cells.append(BenchmarkCell(f"{k + 1}: {site.name}", load, site.at(load), site.engine, held_out=True))
    return cells


def _clusters(count: int | None) -> list[ClusterCell]:
    return _spread("--clusters", count, cluster_cells())


def _spread(name: str, count: int | None, cells: list[T]) -> list[T]:
    if count is None:
        return cells
    check_integer(name, count, at_least=1, at_most=len(cells))
    return [cells[k * len(cells) // count] for k in range(count)]


def _of_networks(scheduler: Scheduler) -> bool:
    return scheduler.compose.__module__.startswith("baselines.tasks")
