"""The command line of the benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmsched_env.evaluation.benchmark.cell_runs import BENCHMARK_OBJECTIVES
from llmsched_env.evaluation.suite import LOADS

STAGES = ("tune", "test", "random", "azure", "cluster", "networks", "report")
QUICK = {
    "cells": 2,
    "trials": 4,
    "index_trials": 8,
    "tuning_seeds": 2,
    "seeds": 3,
    "random_sites": 2,
    "clusters": 1,
    "network_runs": 2,
}


def parser(policies: Mapping[str, str], traces: Path, baselines: Sequence[str]) -> argparse.ArgumentParser:
    """The command line.

    Args:
        policies: name of the policy of each objective, unless others are given.
        traces: folder of the Azure slices, unless another is given.
        baselines: names of the baselines, unless others are given.
    """
    p = argparse.ArgumentParser(description="Compare the learned policies with the best tuned baselines of the suite.")
    p.add_argument(
        "--stage",
        choices=("all", *STAGES),
        default="all",
        help="one stage; earlier stages must have run, or run as far as it needs them (default: %(default)s)",
    )
    p.add_argument(
        "--objectives",
        default=",".join(BENCHMARK_OBJECTIVES),
        metavar="LIST",
        help="objectives of the comparison (default: %(default)s)",
    )
    p.add_argument(
        "--policies",
        default="",
        metavar="LIST",
        help="the policies, as objective=POLICY: the name of a pretrained policy, a file .npz of a steered index "
        f"policy, or a name of the registry (default: {', '.join(f'{k}={v}' for k, v in policies.items())})",
    )
    p.add_argument(
        "--beside",
        default="",
        metavar="LIST",
        help="schedulers of the registry that were written after a policy: tested with it, but no baselines",
    )
    p.add_argument(
        "--baselines",
        default="",
        metavar="LIST",
        help="the baselines to screen, tune and choose from; all: those of the registry for one engine "
        f"(default: {','.join(baselines)})",
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
        default=32,
        metavar="N",
        help="settings of each baseline that is tuned; half of them for p99_ttft (default: %(default)s)",
    )
    p.add_argument(
        "--index-trials",
        type=int,
        default=32,
        metavar="N",
        help="settings of the static index policy: its defaults, the constants of the policy, and draws around them "
        "(default: %(default)s)",
    )
    p.add_argument(
        "--tuning-seeds", type=int, default=3, metavar="N", help="seeds that they are tuned on (default: %(default)s)"
    )
    p.add_argument("--seeds", type=int, default=24, metavar="N", help="test seeds of each cell (default: %(default)s)")
    p.add_argument(
        "--random-sites",
        type=int,
        default=40,
        metavar="N",
        help="sites drawn at random, unseen in development, the loads in turn (default: %(default)s)",
    )
    p.add_argument("--clusters", type=int, metavar="N", help="clusters, spread over those of the suite (default: all)")
    p.add_argument(
        "--network-runs",
        type=int,
        default=40,
        metavar="N",
        help="held-out runs of each scheduler of the agent network (default: %(default)s)",
    )
    p.add_argument(
        "--traces", type=Path, default=traces, metavar="FOLDER", help="slices of the Azure trace (default: %(default)s)"
    )
    p.add_argument(
        "--quick",
        action="store_true",
        help="a short run of everything: " + ", ".join(f"--{k.replace('_', '-')} {v}" for k, v in QUICK.items())
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
