"""Train a router for clusters of engines by evolution strategies, and compare it with every registered one.

python -m agents.train_router --out runs/router                      # the settings of the one that is shipped
python -m agents.train_router --out runs/slo --objective slo_attainment
python -m agents.train_router --evaluate llmsched_env/policies/pretrained/router.npz
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Train a router by evolution strategies and compare it with all others.")
    p.add_argument("--out", type=Path, metavar="FOLDER", help="of the training, gone on from if it has begun there")
    p.add_argument("--generations", type=int, default=60, help="after which it ends (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the training (default: %(default)s)")
    p.add_argument(
        "--objective", default="mean_e2el", help="mean_e2el, or slo_attainment, of the calls (default: %(default)s)"
    )
    p.add_argument("--evaluate", type=Path, metavar="NPZ", help="only compare a router that a training has found")
    p.add_argument("--seeds", type=int, default=10, help="test seeds of each cluster (default: %(default)s)")
    p.add_argument("--no-comparison", action="store_true", help="train only")
    return p


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    p = parser()
    args = p.parse_args(arguments)
    if (args.out is None) == (args.evaluate is None):
        p.error("give either --out FOLDER, to train, or --evaluate NPZ, to compare")
    try:
        _run(args)
    except (ValueError, FileNotFoundError) as error:
        p.error(str(error))


def _run(args: argparse.Namespace) -> None:
    from agents.folders import interrupted  # here, so that --help is quick
    from agents.router_comparison import compare, tables
    from agents.router_training import RouterTraining, load, train
    from llmsched_env.evaluation.seeds import TEST_SEEDS, seed_range

    seed_range(TEST_SEEDS, args.seeds)  # refuses a bad number before a long training
    if args.evaluate is None:
        config = RouterTraining(args.generations, args.seed, args.objective)
        try:
            train(config, args.out, partial(print, flush=True))
        except KeyboardInterrupt:
            sys.exit(interrupted(args.out))
    if not args.no_comparison:
        print(tables(compare(load(args.evaluate or args.out / "best.npz", "learned"), args.seeds, progress=True)))


if __name__ == "__main__":
    main()
