"""Compare the learned policies with the best baselines of the benchmark suite: engines, clusters, agent networks.

python benchmark.py                             # everything, 77 minutes on two cores; continues if interrupted
python benchmark.py --quick                     # a few cells, trials and seeds, in a minute
python benchmark.py --stage report              # tables and figures from finished runs
python benchmark.py --policies slo_attainment=runs/steered/best.npz
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import baselines
from baselines import routers
from llmsched_env.evaluation.benchmark import results
from llmsched_env.evaluation.benchmark.azure_traces import LOADS as TRACE_LOADS
from llmsched_env.evaluation.benchmark.baseline_search import TuningPlan
from llmsched_env.evaluation.benchmark.cell_runs import BENCHMARK_OBJECTIVES, BenchmarkCell, suite_cells
from llmsched_env.evaluation.benchmark.clusters import ClusterCell, cluster_cells
from llmsched_env.evaluation.benchmark.command_line import QUICK, STAGES, parser
from llmsched_env.evaluation.benchmark.hand_written_rules import length_and_work, length_times_slack
from llmsched_env.evaluation.benchmark.network_cases import PRIORITIES, NetworkSetting
from llmsched_env.evaluation.benchmark.network_section import network_sections, run_networks
from llmsched_env.evaluation.benchmark.report import write_benchmark
from llmsched_env.evaluation.benchmark.sections import cluster_sections, random_sections, trace_sections
from llmsched_env.evaluation.benchmark.stages import Benchmark, read_azure, read_current_results, read_results
from llmsched_env.evaluation.benchmark.static_index import static_settings
from llmsched_env.evaluation.benchmark.statistics import RESAMPLES
from llmsched_env.evaluation.cases import TEST_SEEDS, TUNING_SEEDS, seed_range
from llmsched_env.evaluation.random_sites import random_site
from llmsched_env.evaluation.suite import H100, HELD_OUT, TRAINING, VERSION
from llmsched_env.machine.config import EngineConfig
from llmsched_env.policies import learned_index, pretrained
from llmsched_env.policies.index import index
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice, check_integer

POLICIES = {"slo_attainment": "slo", "mean_e2el": "latency", "p99_ttft": "slo"}
PAUSING = {"slo_attainment": "slo_pausing", "mean_e2el": "latency_pausing"}
ADDITIONAL = {"slo_attainment": ("slo_pausing", "slo_scratch"), "mean_e2el": ("latency_pausing",)}
ALWAYS_TUNED = ("slo_first", "slos_serve", "qoserve")
SCREENED = (
    *("vllm_v1", "sarathi", "slo_first", "slos_serve", "qoserve", "slai", "edf", "least_slack", "srpt_predicted"),
    *("trail", "ssjf", "learning_to_rank", "sola"),
)
"""The default baselines: two plain systems, and rules by deadline, slack, length and prediction."""
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
TRACES = Path(os.environ.get("LLMSCHED_TRACES", Path(__file__).resolve().parent / "../shared/traces")) / "azure_2023"
QUICK_HORIZON = 450.0  # s of a run of the network


def parse_objectives(text: str) -> list[str]:
    """Objectives of a list of names.

    Raises:
        ValueError: for one that the benchmark does not have.
    """
    return [check_choice("objective", name, BENCHMARK_OBJECTIVES) for name in text.split(",")]


def load_policy(text: str) -> Scheduler:
    """The pretrained policy of this name, a file, or a name of the registry.

    Raises:
        ValueError: for an unknown name.
        FileNotFoundError: for a file that is not there.
    """
    if text == index.name:
        return index
    if text in baselines.REGISTRY:
        return baselines.get(text)
    if Path(text).suffix == ".npz":
        return learned_index.load(text)
    return pretrained.load(text)


def parse_policies(text: str, objectives: Sequence[str]) -> dict[str, Scheduler]:
    """The policy of each objective, of a list such as `slo_attainment=slo,mean_e2el=latency`; else the default ones.

    Raises:
        ValueError: for an objective that is not run, or an unknown policy.
    """
    given = dict(item.partition("=")[::2] for item in text.split(",") if item)
    for name in given:
        check_choice("objective of --policies", name, objectives)
    return {name: load_policy(given.get(name, POLICIES[name])) for name in objectives}


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
        check_choice("--baselines", name, tuple(found))
    return {name: scheduler for name, scheduler in found.items() if not only or name in only}


def oracles() -> dict[str, Scheduler]:
    """Registered schedulers that know the true lengths."""
    return {f"{n}, true lengths": s for n, s in baselines.REGISTRY.items() if s.needs_lengths == "true"}


def benchmark(args: argparse.Namespace, command: str) -> Path | None:
    """Run the stages of a command line; returns the path of the report, if it was written."""
    if args.quick:
        args = argparse.Namespace(**{**vars(args), **QUICK})
    stages = STAGES if args.stage == "all" else (args.stage,)
    check_integer("--network-runs", args.network_runs, at_least=2)
    if {"tune", "test", "random", "azure", "cluster"} & set(stages):
        _simulate(args, stages)
    if "networks" in stages:
        _networks(args)
    if "report" not in stages:
        return None
    facts = [
        ("Suite", f"version {VERSION}: {len(TRAINING)} sites that policies train on, {len(HELD_OUT)} held out"),
        ("Seeds", f"tuning {TUNING_SEEDS} and on, {args.tuning_seeds} of them; test {TEST_SEEDS} and on"),
        (
            "Trials",
            f"{args.trials} settings of each tuned baseline, half of them for p99_ttft; "
            f"{args.index_trials} of the static index policy",
        ),
        ("Command", command),
        ("Commit", _commit()),
        ("Date", time.strftime("%Y-%m-%d", time.gmtime())),
    ]
    more = [
        *random_sections(read_current_results(args.out / "random.json")),
        *trace_sections(read_azure(args.out / "azure.json")),
        *cluster_sections(read_current_results(args.out / "cluster.json")),
        *network_sections(args.out / "networks.json"),
    ]
    return write_benchmark(read_results(args.out / "results.json"), more, args.out, facts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = sys.argv[1:] if arguments is None else arguments
    p = parser(POLICIES, TRACES, SCREENED)
    args = p.parse_args(arguments)
    try:
        report = benchmark(args, shlex.join(["python", "benchmark.py", *arguments]))
    except (ValueError, FileNotFoundError) as error:
        p.error(str(error))
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command continues where this one stopped.")
    if report is not None:
        print((args.out / "verdicts.txt").read_text(encoding="utf-8"))
        print(f"Report: {report.resolve()}")


def _simulate(args: argparse.Namespace, stages: Sequence[str]) -> None:
    for name in ("trials", "index_trials", "tuning_seeds"):
        check_integer(f"--{name.replace('_', '-')}", getattr(args, name), at_least=1)
    check_integer("--seeds", args.seeds, at_least=2)
    beside = [name for name in args.beside.split(",") if name]
    named = [name for name in args.baselines.split(",") if name] or [name for name in SCREENED if name not in beside]
    chosen = single_engine_baselines(beside, [] if named == ["all"] else named)
    objectives = parse_objectives(args.objectives)
    policies = parse_policies(args.policies, objectives)
    clusters = _clusters(args.clusters) if "cluster" in stages else []
    drawn = _random_cells(args.random_sites, args.loads) if "random" in stages else []
    run = Benchmark(
        cells=_cells(args.cells, args.loads) if {"tune", "test"} & set(stages) else [],
        policies=policies,
        additional_policies={
            name: {other: load_policy(other) for other in ADDITIONAL.get(name, ())} for name in objectives
        },
        plan=TuningPlan(
            schedulers=chosen,
            always=[name for name in ALWAYS_TUNED if name in chosen],
            index={name: _statics(name, policies[name], args.index_trials) for name in objectives},
            seeds=seed_range(TUNING_SEEDS, args.tuning_seeds),
            trials={name: max(1, args.trials // (2 if name == "p99_ttft" else 1)) for name in objectives},
            four_knobs=[name for name in FOUR_KNOBS if name in chosen],
        ),
        references={name: baselines.get(name) for name in (*REFERENCES, *beside) if name in (*chosen, *beside)}
        | {"rule made after slo": length_times_slack, "rule made after latency": length_and_work}
        | oracles(),
        test_seeds=seed_range(TEST_SEEDS, args.seeds),
        folder=args.out,
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
    if "azure" in stages and not args.quick:
        if args.traces.is_dir():
            run.azure(args.traces, EngineConfig.for_gpu(H100), TRACE_LOADS)
        else:
            print(f"There is no folder {args.traces} with slices of the Azure trace: they are left out. See --traces.")
    if clusters:
        rivals = [chosen[name] for name in CLUSTER_DEFAULTS if name in chosen]
        run.cluster(clusters, rivals, routers.get(CLUSTER_ROUTER), [*map(routers.get, CLUSTER_ROUTERS)])


def _statics(objective: str, policy: Scheduler, count: int) -> dict[str, list[Scheduler]]:
    """Settings of the static index policy: around the policy, and around the one that may pause."""
    around = {results.INDEX: policy}
    if objective in PAUSING:
        around[results.PAUSING_INDEX] = load_policy(PAUSING[objective])
    return {name: static_settings(center, count) for name, center in around.items()}


def _networks(args: argparse.Namespace) -> None:
    policy = pretrained.load(pretrained.NETWORK)
    setting = NetworkSetting(horizon=QUICK_HORIZON) if args.quick else NetworkSetting()
    run_networks({"the policy": policy} | PRIORITIES, setting, args.network_runs, args.out / "networks.json")


def _cells(count: int | None, loads: Sequence[float]) -> list[BenchmarkCell]:
    cells, left_out = suite_cells(baselines.sarathi(token_budget=16384), loads)
    for name in left_out:
        print(f"{name} is left out: its requests miss their targets even when each is served alone.")
    return _spread("--cells", count, cells)


def _random_cells(count: int, loads: Sequence[float]) -> list[BenchmarkCell]:
    """Sites that were never drawn in training or development: the generator starts at the test seeds."""
    check_integer("--random-sites", count, at_least=1)
    cells = []
    for k in range(count):
        site, load = random_site(np.random.default_rng([TEST_SEEDS, k])), loads[k % len(loads)]
        cells.append(BenchmarkCell(f"{k + 1}: {site.name}", load, site.at(load), site.engine, held_out=True))
    return cells


def _clusters(count: int | None) -> list[ClusterCell]:
    return _spread("--clusters", count, cluster_cells())


def _spread(name: str, count: int | None, cells: list) -> list:
    if count is None:
        return cells
    check_integer(name, count, at_least=1, at_most=len(cells))
    return [cells[k * len(cells) // count] for k in range(count)]


def _of_networks(scheduler: Scheduler) -> bool:
    return scheduler.compose.__module__.startswith("baselines.tasks")


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
