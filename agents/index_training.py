"""Train a network that steers the index policy.

python -m agents.index_training --objective slo_attainment --out FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from agents.command_line import errors_explained, printed


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    p = argparse.ArgumentParser(description="Train a network that steers the index policy.")
    p.add_argument("--objective", choices=("slo_attainment", "mean_e2el"), default="slo_attainment")
    p.add_argument("--pausing", action="store_true", help="let prompts that have begun wait for others")
    p.add_argument("--start", type=Path, help="file of a policy to start from")
    p.add_argument("--plain", action="store_true", help="start from the constants of a plain rule")
    p.add_argument(
        "--generations",
        type=int,
        help="of evolution strategies, before the sweeps, in the first stage (default: 80 for mean_e2el, else 0; "
        "with --plain 60)",
    )
    p.add_argument("--sweeps", type=int, default=1, help="of the coordinate search (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args(arguments)
    from agents.problems import index_policy  # here, so that --help is quick

    with errors_explained(p, args.out):
        config = index_policy.IndexTraining(
            args.objective, args.pausing, args.start, args.plain, seed=args.seed, sweeps=args.sweeps
        )
        if args.generations is not None:
            first, *others = config.all_stages
            config = replace(config, stages=(replace(first, generations=args.generations), *others))
        print(asdict(config))
        index_policy.train(config, args.out, printed)


if __name__ == "__main__":
    main()
