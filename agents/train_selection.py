"""Train an agent that picks the requests of each batch, and compare it with fixed orders on held-out requests.

python -m agents.train_selection --out runs/selection
python -m agents.train_selection --out runs/selection --steps 1000000   # go on with it
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from agents.command_line import errors_explained, printed


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    p = argparse.ArgumentParser(
        description="Train MaskablePPO on llmsched/RequestSelection-v0, from a folder's last checkpoint if it has one."
    )
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="checkpoints and TensorBoard logs")
    p.add_argument("--workload", default="azure-chat", metavar="NAME", help="preset (default: %(default)s)")
    p.add_argument("--engine", default="llama-3.1-8b_h100-80gb_tp1_aic", metavar="PROFILE", help="GPU profile")
    p.add_argument(
        "--objective", default="mean_e2el", metavar="NAME",
        help="mean_e2el or slo_attainment, or the name of the reward that leads to it: latency, goodput",
    )  # fmt: skip
    p.add_argument("--steps", type=int, default=500_000, help="choices, over all environments (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the training (default: %(default)s)")
    p.add_argument("--slots", type=int, default=16, help="requests to choose from (default: %(default)s)")
    p.add_argument("--from-scratch", action="store_true", help="do not start from the shortest prompt first")
    p.add_argument("--work-conserving", action="store_true", help="never hold back a request that fits")
    args = p.parse_args(arguments)

    from agents.objectives import objective_name  # here, so that --help is quick
    from agents.problems import selection
    from agents.sb3.maskable_ppo import MaskablePPOSettings

    with errors_explained(p, args.out):
        config = selection.SelectionTraining(
            workload=args.workload, engine=args.engine, objective=objective_name(args.objective), steps=args.steps,
            seed=args.seed, slots=args.slots, work_conserving=args.work_conserving,
            ppo=MaskablePPOSettings(shortest_first=0.0) if args.from_scratch else MaskablePPOSettings(),
        )  # fmt: skip
        selection.train(config, args.out, printed)
    print("Comparing on test requests ...")
    print(selection.evaluate(config, args.out, others=("slo_first",)))


if __name__ == "__main__":
    main()
