"""Train an agent on the Rybko-Stolyar network from scratch and compare it with every class priority.

python -m agents.train_network                      # less than a minute on one core
python -m agents.train_network --steps 80000 --seed 1
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    p = argparse.ArgumentParser(description="Train PPO on llmsched/AgentNetwork-v0 and compare it with priorities.")
    p.add_argument("--load", type=float, default=0.9, help="of each engine (default: %(default)s)")
    p.add_argument("--steps", type=int, default=24_000, help="over all environments (default: %(default)s)")
    p.add_argument("--envs", type=int, default=16, help="environments in parallel (default: %(default)s)")
    p.add_argument("--interval", type=float, default=20.0, help="seconds between decisions (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the training (default: %(default)s)")
    p.add_argument("--runs", type=int, default=10, help="held-out runs (default: %(default)s)")
    p.add_argument("--out", help="file for the trained model")
    args = p.parse_args(arguments)

    from agents.network_ppo import Setting, compare, table, train

    setting = Setting(load=args.load, interval=args.interval)
    started = time.perf_counter()
    model = train(setting, args.steps, args.envs, args.seed)
    print(f"trained {model.num_timesteps:,} steps in {time.perf_counter() - started:.0f} s")
    if args.out:
        model.save(args.out)
    print(table(compare(model, setting, range(args.runs))))


if __name__ == "__main__":
    main()
