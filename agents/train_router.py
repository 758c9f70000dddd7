"""Train a router for clusters of engines by evolution strategies, and compare it with every registered one.

python -m agents.train_router --out runs/router                      # the settings of the one that is shipped
python -m agents.train_router --out runs/slo --objective slo_attainment
python -m agents.train_router --evaluate llmsched_env/policies/pretrained/router.npz
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from agents.command_line import errors_explained, printed


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
    with errors_explained(p, args.out):
        _run(args)


def _run(args: argparse.Namespace) -> None:
    from llmsched_env.evaluation.benchmark.routers import compare, tables  # here, so that --help is quick
    from llmsched_env.evaluation.cases import TEST_SEEDS, seed_range
    from llmsched_env.policies import learned_router

    seed_range(TEST_SEEDS, args.seeds)  # refuses a bad number before a long training
    if args.evaluate is None:
        from agents.problems import router
        from agents.search.stages import EvolutionSettings

        router.train(
            router.RouterTraining(EvolutionSettings(args.generations), args.seed, args.objective), args.out, printed
        )
    if not args.no_comparison:
        found = learned_router.load(args.evaluate or args.out / "best.npz", "learned")
        print(tables(compare(found, args.seeds, progress=True)))


if __name__ == "__main__":
    main()
