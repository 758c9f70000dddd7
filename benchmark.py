"""Judge the learned policies against the best baseline tuned for every cell of the benchmark suite.

python benchmark.py                             # everything, hours on two cores; goes on where it was interrupted
python benchmark.py --quick                     # a few cells, trials and seeds, in a minute
python benchmark.py --stage report              # tables and figures from the runs that are there
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
from pathlib import Path

import baselines
from agents.rules import length_times_slack
from llmsched_env.evaluation.benchmark.azure import LOADS as TRACE_LOADS
from llmsched_env.evaluation.benchmark.cell_search import Plan
from llmsched_env.evaluation.benchmark.cells import JUDGED, Cell, suite_cells
from llmsched_env.evaluation.benchmark.report import write_benchmark
from llmsched_env.evaluation.benchmark.run import Benchmark, read_azure, read_results
from llmsched_env.evaluation.benchmark.statistics import RESAMPLES
from llmsched_env.evaluation.seeds import TEST_SEEDS, TUNING_SEEDS, seed_range
from llmsched_env.evaluation.suite import H100, HELD_OUT, LOADS, TRAINING, VERSION
from llmsched_env.policies.index import index
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice, check_integer

POLICIES = {"slo_attainment": "slo", "mean_e2el": "latency", "p99_ttft": "slo"}
ALWAYS_TUNED = ("slo_first", "slos_serve", "qoserve")
TESTED_AS_THEY_COME = (
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
STAGES = ("tune", "test", "azure", "report")
TRACES = Path(os.environ.get("LLMSCHED_TRACES", Path(__file__).resolve().parent / "../shared/traces")) / "azure_2023"
QUICK = {"cells": 2, "trials": 4, "index_trials": 8, "tuning_seeds": 2, "seeds": 3}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Judge the learned policies against the best tuned baselines of the suite.")
    p.add_argument(
        "--stage",
        choices=("all", *STAGES),
        default="all",
        help="one stage; those before it must have run, or are run as far as it needs them (default: %(default)s)",
    )
    p.add_argument(
        "--objectives",
        default=",".join(JUDGED),
        metavar="LIST",
        help="what policies are judged by (default: %(default)s)",
    )
    p.add_argument(
        "--policies",
        default="",
        metavar="LIST",
        help="what is judged, as objective=POLICY: a name under agents/pretrained, a file .npz of a steered index "
        f"policy, or a name of the registry (default: {', '.join(f'{k}={v}' for k, v in POLICIES.items())})",
    )
    p.add_argument(
        "--beside",
        default="",
        metavar="LIST",
        help="schedulers of the registry that were made after a policy: tested beside it, never among the baselines",
    )
    p.add_argument(
        "--baselines",
        default="",
        metavar="LIST",
        help="the baselines to screen, tune and choose from (default: all of the registry for one engine)",
    )
    p.add_argument(
        "--loads",
        type=float,
        nargs="+",
        default=LOADS,
        metavar="LOAD",
        help=f"of every site (default: {' '.join(map(str, LOADS))})",
    )
    p.add_argument("--cells", type=int, metavar="N", help="cells of the suite, spread over it (default: all)")
    p.add_argument(
        "--trials",
        type=int,
        default=24,
        metavar="N",
        help="settings of each baseline that is tuned; half of them for p99_ttft (default: %(default)s)",
    )
    p.add_argument(
        "--index-trials",
        type=int,
        default=300,
        metavar="N",
        help="settings of the static index policy at most; it gets as many simulations as all baselines of a cell "
        "together (default: %(default)s)",
    )
    p.add_argument(
        "--tuning-seeds", type=int, default=4, metavar="N", help="seeds that they are tuned on (default: %(default)s)"
    )
    p.add_argument("--seeds", type=int, default=24, metavar="N", help="test seeds of each cell (default: %(default)s)")
    p.add_argument(
        "--traces", type=Path, default=TRACES, metavar="FOLDER", help="slices of the Azure trace (default: %(default)s)"
    )
    p.add_argument(
        "--quick",
        action="store_true",
        help="a look at everything: " + ", ".join(f"--{k.replace('_', '-')} {v}" for k, v in QUICK.items())
        + ", no traces",
    )  # fmt: skip
    p.add_argument(
        "--out",
        type=Path,
        default=Path("runs/benchmark"),
        metavar="FOLDER",
        help="for report.html, benchmark.md, headline.svg and .png, and all runs (default: %(default)s)",
    )
    return p


def parse_objectives(text: str) -> list[str]:
    """Objectives of a list of names.

    Raises:
        ValueError: for one that is not judged.
    """
    return [check_choice("objective", name, JUDGED) for name in text.split(",")]


def load_policy(text: str) -> Scheduler:
    """The policy of a name under agents/pretrained, a file, or a name of the registry.

    Raises:
        ValueError: for an unknown name.
        FileNotFoundError: for a file that is not there.
    """
    if text == index.name:
        return index
    if text in baselines.REGISTRY:
        return baselines.get(text)
    if Path(text).suffix == ".npz":
        from agents import load_steered

        return load_steered(text)
    from agents import pretrained

    return pretrained.load(text)


def parse_policies(text: str, objectives: Sequence[str]) -> dict[str, Scheduler]:
    """The policy of each objective, of a list such as `slo_attainment=slo,mean_e2el=latency`; else the default ones.

    Raises:
        ValueError: for an objective that is not judged, or an unknown policy.
    """
    given = dict(item.partition("=")[::2] for item in text.split(",") if item)
    for name in given:
        check_choice("objective of --policies", name, objectives)
    return {name: load_policy(given.get(name, POLICIES[name])) for name in objectives}


def single_engine_baselines(beside: Sequence[str], only: Sequence[str] = ()) -> dict[str, Scheduler]:
    """Registered schedulers for one engine that do without true lengths, but for those beside; or `only` some of them.

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
    """Registered schedulers that are told the true lengths."""
    return {f"{n}, true lengths": s for n, s in baselines.REGISTRY.items() if s.needs_lengths == "true"}


def benchmark(args: argparse.Namespace, command: str) -> Path | None:
    """Run the stages of a command line; returns the path of the report, if it was written."""
    if args.quick:
        args = argparse.Namespace(**{**vars(args), **QUICK})
    stages = STAGES if args.stage == "all" else (args.stage,)
    if stages != ("report",):
        _simulate(args, stages)
    if "report" not in stages:
        return None
    facts = [
        ("Suite", f"version {VERSION}: {len(TRAINING)} sites that policies train on, {len(HELD_OUT)} held out"),
        ("Seeds", f"tuning {TUNING_SEEDS} and on, {args.tuning_seeds} of them; test {TEST_SEEDS} and on"),
        ("Trials", f"{args.trials} settings of each tuned baseline; half of them for p99_ttft"),
        ("Command", command),
        ("Commit", _commit()),
        ("Date", time.strftime("%Y-%m-%d", time.gmtime())),
    ]
    cells, traces = read_results(args.out / "results.json"), read_azure(args.out / "azure.json")
    return write_benchmark(cells, traces, args.out, facts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = sys.argv[1:] if arguments is None else arguments
    p = parser()
    args = p.parse_args(arguments)
    try:
        report = benchmark(args, shlex.join(["python", "benchmark.py", *arguments]))
    except (ValueError, FileNotFoundError) as error:
        p.error(str(error))
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on where this one stopped.")
    if report is not None:
        print((args.out / "verdicts.txt").read_text(encoding="utf-8"))
        print(f"Report: {report.resolve()}")


def _simulate(args: argparse.Namespace, stages: Sequence[str]) -> None:
    for name in ("trials", "index_trials", "tuning_seeds"):
        check_integer(f"--{name.replace('_', '-')}", getattr(args, name), at_least=1)
    check_integer("--seeds", args.seeds, at_least=2)
    beside = [name for name in args.beside.split(",") if name]
    chosen = single_engine_baselines(beside, [name for name in args.baselines.split(",") if name])
    objectives = parse_objectives(args.objectives)
    policies = parse_policies(args.policies, objectives)
    run = Benchmark(
        cells=_cells(args.cells, args.loads),
        policies=policies,
        plan=Plan(
            schedulers=chosen,
            always=[name for name in ALWAYS_TUNED if name in chosen],
            index=index,
            seeds=seed_range(TUNING_SEEDS, args.tuning_seeds),
            trials={name: max(1, args.trials // (2 if name == "p99_ttft" else 1)) for name in objectives},
            index_trials=args.index_trials,
        ),
        beside={name: baselines.get(name) for name in (*TESTED_AS_THEY_COME, *beside) if name in (*chosen, *beside)}
        | {"rule made after the policy": length_times_slack}
        | oracles(),
        test_seeds=seed_range(TEST_SEEDS, args.seeds),
        folder=args.out,
        resamples=RESAMPLES,
    )
    if "tune" in stages or "test" in stages:
        found = run.tune()
        if "test" in stages:
            run.test(found)
    if "azure" in stages and not args.quick:
        if args.traces.is_dir():
            run.azure(args.traces, EngineConfig.for_gpu(H100), TRACE_LOADS)
        else:
            print(f"There is no folder {args.traces} with slices of the Azure trace: they are left out. See --traces.")


def _cells(count: int | None, loads: Sequence[float]) -> list[Cell]:
    cells, left_out = suite_cells(baselines.sarathi(token_budget=16384), loads)
    for name in left_out:
        print(f"{name} is left out: its requests miss their targets even when each is served alone.")
    if count is None:
        return cells
    check_integer("--cells", count, at_least=1, at_most=len(cells))
    return [cells[k * len(cells) // count] for k in range(count)]


def _of_networks(scheduler: Scheduler) -> bool:
    return scheduler.compose.__module__.startswith("baselines.network")


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
