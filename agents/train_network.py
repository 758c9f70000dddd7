"""Train a policy for the Rybko-Stolyar network from scratch and compare it with every class priority and other rules.

python -m agents.train_network                                          # PPO, less than a minute on one core
python -m agents.train_network --algo es --out runs/network             # evolution strategies, some minutes
python -m agents.train_network --evaluate llmsched_env/policies/pretrained/network.npz --runs 40
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    p = argparse.ArgumentParser(description="Train a policy for a network of engines and compare it with priorities.")
    p.add_argument("--algo", choices=("ppo", "es"), default="ppo", help="PPO, or evolution strategies")
    p.add_argument("--load", type=float, default=0.9, help="of each engine in the comparison (default: %(default)s)")
    p.add_argument("--steps", type=int, default=24_000, help="PPO: over all environments (default: %(default)s)")
    p.add_argument("--envs", type=int, default=16, help="PPO: environments in parallel (default: %(default)s)")
    p.add_argument("--interval", type=float, default=20.0, help="PPO: seconds between decisions (default: %(default)s)")
    p.add_argument("--generations", type=int, default=120, help="es: generations (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the training (default: %(default)s)")
    p.add_argument("--runs", type=int, default=10, help="held-out runs (default: %(default)s)")
    p.add_argument("--out", type=Path, help="PPO: file for the model; es: folder, gone on from if a search is there")
    p.add_argument("--evaluate", type=Path, metavar="NPZ", help="only compare a policy that es has found")
    args = p.parse_args(arguments)
    if args.algo == "es" and args.out is None and args.evaluate is None:
        p.error("--algo es needs --out FOLDER")

    try:
        _run(args)
    except (ValueError, FileNotFoundError) as error:
        p.error(str(error))


def _run(args: argparse.Namespace) -> None:
    from agents.network_comparison import Setting, compare, run_scheduler, table
    from llmsched_env.validation import check_integer

    check_integer("runs", args.runs, at_least=1)
    setting = Setting(load=args.load, interval=args.interval)
    started = time.perf_counter()
    if args.evaluate is not None or args.algo == "es":
        from agents.folders import interrupted
        from agents.network_index import NetworkTraining, load, train

        if args.evaluate is None:
            try:
                train(NetworkTraining(args.generations, args.seed), args.out, partial(print, flush=True))
            except KeyboardInterrupt:
                sys.exit(interrupted(args.out))
        name, run = "learned", partial(run_scheduler, load(args.evaluate or args.out / "best.npz"))
    else:
        from agents.network_ppo import run_agent
        from agents.network_ppo import train as train_ppo

        model = train_ppo(setting, args.steps, args.envs, args.seed)
        if args.out is not None:
            model.save(args.out)
        name, run = "agent", partial(run_agent, model)
    print(f"ready after {time.perf_counter() - started:.0f} s")
    print(table(compare(name, run, setting, range(args.runs))))


if __name__ == "__main__":
    main()
