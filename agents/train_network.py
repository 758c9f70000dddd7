"""Train a policy for the Rybko-Stolyar network from scratch and compare it with every class priority and other rules.

python -m agents.train_network                                          # PPO, less than a minute on one core
python -m agents.train_network --algo es --out runs/network             # evolution strategies, some minutes
python -m agents.train_network --evaluate llmsched_env/policies/pretrained/network.npz --runs 40
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from agents.command_line import errors_explained, printed


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

    with errors_explained(p, args.out):
        _run(args)


def _run(args: argparse.Namespace) -> None:
    from llmsched_env.evaluation.benchmark.network_cases import (  # so that --help is quick
        NetworkSetting,
        compare,
        run_scheduler,
        table,
    )
    from llmsched_env.validation import check_integer

    check_integer("runs", args.runs, at_least=1)
    setting = NetworkSetting(load=args.load, interval=args.interval)
    started = time.perf_counter()
    if args.evaluate is not None or args.algo == "es":
        from llmsched_env.policies import learned_network

        if args.evaluate is None:
            from agents.problems import network
            from agents.search.stages import EvolutionSettings

            network.train(network.NetworkTraining(EvolutionSettings(args.generations), args.seed), args.out, printed)
        policy = learned_network.load(args.evaluate or args.out / "best.npz")
        rows = compare("learned", partial(run_scheduler, policy), setting, range(args.runs))
    else:
        from agents.problems import network_ppo

        model = network_ppo.train(setting, args.steps, args.envs, args.seed)
        if args.out is not None:
            model.save(args.out)
        rows = compare("agent", partial(network_ppo.run_agent, model), setting, range(args.runs))
    print(f"ready after {time.perf_counter() - started:.0f} s")
    print(table(rows))


if __name__ == "__main__":
    main()
