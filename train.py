"""Train an agent to schedule, and compare it with the published baselines and the best fixed setting of its own knobs.

python train.py                                   # the default job, about five minutes on 2 cores
python train.py --trace requests.csv --minutes 20 # the same on your own requests
python train.py --resume                          # go on with the latest training in runs/
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agents.command_line import errors_explained

if TYPE_CHECKING:
    from agents.problems.knobs import KnobsProblem

RUNS = Path("runs")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Train an agent to schedule and compare it with the baselines.",
        epilog="Training, tuning (with the choice of the checkpoint) and test use disjoint seeds, or parts of a trace.",
    )
    what = p.add_argument_group("what to train on")
    what.add_argument("--workload", default="azure-chat", metavar="NAME", help="preset (default: %(default)s)")
    what.add_argument(
        "--trace",
        metavar="FILE",
        help="your own requests, instead of a preset: 60 %% train, 20 %% tune, 20 %% test, in time",
    )
    what.add_argument(
        "--engine",
        default="llama-3.1-8b_h100-80gb_tp1_aic",
        metavar="PROFILE",
        help="GPU profile (default: %(default)s)",
    )
    what.add_argument(
        "--load", type=float, nargs=2, default=(0.6, 1.05), metavar=("LOW", "HIGH"),
        help="range of the load of training episodes, as a share of the reference capacity (default: 0.6 1.05)",
    )  # fmt: skip
    what.add_argument(
        "--eval-loads", type=float, nargs="+", default=(0.6, 0.8, 0.95), metavar="LOAD",
        help="loads of tuning, validation and the final comparison (default: 0.6 0.8 0.95)",
    )  # fmt: skip
    what.add_argument(
        "--objective", default="mean_e2el", metavar="NAME",
        help="mean_e2el or slo_attainment, or the name of the reward that leads to it: latency, goodput "
        "(default: %(default)s)",
    )  # fmt: skip
    what.add_argument(
        "--slo", type=float, nargs=2, metavar=("TTFT", "TPOT"),
        help="targets in seconds (default: the workload's; 1.0 0.1 for a trace without)",
    )  # fmt: skip
    what.add_argument(
        "--pretrained",
        choices=("slo", "slo_pausing", "slo_scratch", "latency", "latency_pausing", "network", "router"),
        help="train a policy that comes with the project again, from its seed; the only other options that count are "
        "--out and --seed",
    )  # fmt: skip
    how = p.add_argument_group("how to train")
    how.add_argument(
        "--algo", choices=("ppo", "dqn"), default="ppo",
        help="ppo sets every knob; dqn chooses among the best fixed settings of them (default: %(default)s)",
    )  # fmt: skip
    how.add_argument("--steps", type=int, metavar="N", help="environment steps; repeatable, unlike a time limit")
    how.add_argument(
        "--minutes", type=float, metavar="M", help="wall-clock time of training (default: 3.5 unless --steps is given)"
    )
    how.add_argument(
        "--envs", type=int, default=64, metavar="N", help="environments in parallel (default: %(default)s)"
    )
    how.add_argument(
        "--interval", type=float, default=0.25, metavar="S", help="seconds between decisions (default: %(default)s)"
    )
    how.add_argument(
        "--reference", action=argparse.BooleanOptionalAction, default=False,
        help="compare rewards with the best fixed setting on the same requests (default: --no-reference)",
    )  # fmt: skip
    how.add_argument(
        "--shared-traces", type=int, default=1, metavar="K",
        help="K environments in a row serve the same requests, and PPO compares them (default: %(default)s)",
    )  # fmt: skip
    how.add_argument(
        "--curriculum", type=float, default=0.0, metavar="SHARE",
        help="share of the training over which episodes grow to their full load and length (default: %(default)s)",
    )  # fmt: skip
    how.add_argument(
        "--curriculum-start", type=float, default=0.25, metavar="SHARE",
        help="share of both that they begin with (default: %(default)s)",
    )  # fmt: skip
    how.add_argument(
        "--anchor", type=float, default=0.0, metavar="SHARE",
        help="share of the way back to its start that the policy is moved after an update of PPO; decays to 0 "
        "(default: %(default)s)",
    )  # fmt: skip
    how.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the training (default: %(default)s)")
    where = p.add_argument_group("where to write, and going on")
    where.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder of the training (default: a new one in runs/)"
    )
    where.add_argument(
        "--resume", nargs="?", const="", metavar="FOLDER",
        help="go on with the training in FOLDER, or the latest in runs/; only --steps and --minutes (for all of it) "
        "and --no-report are heeded",
    )  # fmt: skip
    where.add_argument("--no-report", action="store_true", help="train only: no final comparison and no report")
    return p


def latest_run() -> Path:
    """The folder in runs/ that was trained in last.

    Raises:
        FileNotFoundError: if there is none.
    """
    from agents.problems.knobs import resumable  # here, so that --help is quick

    configs = sorted(filter(resumable, RUNS.glob("*/config.json")), key=lambda path: path.stat().st_mtime)
    if not configs:
        raise FileNotFoundError(f"there is no training to resume in {RUNS.resolve()}")
    return configs[-1].parent


def open_training(args: argparse.Namespace) -> KnobsProblem:
    """The training that the command line asks for."""
    from agents.objectives import objective_name  # here, so that --help is quick
    from agents.problems.knobs import KnobsProblem, KnobsTraining
    from agents.sb3.learning_aids import LearningAids

    if args.resume is not None:
        return KnobsProblem.reopen(Path(args.resume) if args.resume else latest_run(), args.steps, args.minutes)
    config = KnobsTraining(
        workload=args.workload,
        trace=None if args.trace is None else str(Path(args.trace).resolve()),
        engine=args.engine,
        load=tuple(args.load),
        eval_loads=tuple(args.eval_loads),
        objective=objective_name(args.objective),
        slo=None if args.slo is None else tuple(args.slo),
        steps=args.steps,
        minutes=3.5 if args.steps is None and args.minutes is None else args.minutes,
        num_envs=args.envs,
        interval=args.interval,
        seed=args.seed,
        algo=args.algo,
        aids=LearningAids(args.reference, args.shared_traces, args.curriculum, args.curriculum_start, args.anchor),
    )
    name = args.workload if args.trace is None else Path(args.trace).stem
    folder = args.out or RUNS / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{config.objective}"
    return KnobsProblem.create(config, folder)


def run(args: argparse.Namespace, command: str) -> None:
    """Train, compare, report, and say where everything is."""
    training = open_training(args)
    folder = training.folder
    try:
        training.train()
        if not args.no_report:
            report(training, command)
    except KeyboardInterrupt:
        sys.exit(
            f"\nInterrupted; a checkpoint is saved. Go on with:\n  python train.py --resume {shlex.quote(str(folder))}"
        )
    print(f"Checkpoints:  {training.checkpoints.resolve()}  (best.zip: ls.simulate(agents.load_agent(path), ...))")
    print(f"TensorBoard:  tensorboard --logdir {shlex.quote(str((folder / 'tensorboard').resolve()))}")


def report(training: KnobsProblem, command: str) -> None:
    """Print the comparison on test requests and write the report."""
    from llmsched_env.evaluation import text_table, write_report
    from llmsched_env.evaluation.differences import differences_text

    print("Comparing on test requests ...")
    comparison = training.evaluate()
    table, sentences = text_table(comparison, reference="static_best"), differences_text(comparison)
    (training.folder / "table.txt").write_text(f"{table}\n{sentences}\n", encoding="utf-8")
    print(text_table(comparison, reference="static_best", color=True) if sys.stdout.isatty() else table)
    print(f"{sentences}\n")
    path = write_report(comparison, training.folder / "report.html", reference="static_best", command=command)
    print(f"Report:       {path.resolve()}  (one file, open it in a browser)")


def retrain(name: str, seed: int, folder: Path) -> None:
    """Train a policy of `llmsched_env.policies.pretrained` again, from where its folder stands."""
    from agents.problems import index_policy, network, router  # here, so that --help is quick

    if name == "network":
        network.train(network.NetworkTraining(seed=seed), folder)
    elif name == "router":
        router.train(router.RouterTraining(seed=seed), folder)
    else:
        objective = "slo_attainment" if name.startswith("slo") else "mean_e2el"
        plain, pausing = name == "slo_scratch", name.endswith("_pausing")
        config = index_policy.IndexTraining(objective, pausing or plain, plain=plain, seed=seed)
        index_policy.train(config, folder)
    print(f"Policy:       {(folder / 'best.npz').resolve()}  (the shipped {name}.npz is that of seed 0)")
    print(f"TensorBoard:  tensorboard --logdir {shlex.quote(str((folder / 'tensorboard').resolve()))}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = sys.argv[1:] if arguments is None else arguments
    p = parser()
    args = p.parse_args(arguments)
    of_seed = f"-seed{args.seed}" if args.seed else ""
    folder = args.out or RUNS / f"pretrained-{args.pretrained}{of_seed}"
    with errors_explained(p, folder):
        if args.pretrained:
            retrain(args.pretrained, args.seed, folder)
        else:
            run(args, shlex.join(["python", "train.py", *arguments]))


if __name__ == "__main__":
    main()
