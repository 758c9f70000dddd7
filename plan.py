"""Plan a fleet: how many replicas of which GPU serve your traffic within its targets, and what that costs.

python plan.py --workload azure-chat --rate 40 --gpus llama-3.1-8b_h100-80gb_tp1_aic=2.9
python plan.py --workload my_trace.csv --slo ttft=1,tpot=0.05 --schedulers "vllm_v1,sarathi(token_budget=512)"
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from baselines import routers
from evaluate import load_agents, parse_schedulers, parse_slo, parse_workloads
from llmsched_env.machine.config import EngineConfig
from llmsched_env.planning import FleetPlan, Option, plan
from llmsched_env.planning.report import text_table, write_plan

DEFAULT_GPUS = "llama-3.1-8b_h100-80gb_tp1_aic=2.9"


def parse_gpus(text: str, **engine: object) -> list[Option]:
    """Machines of a list such as `PROFILE=PRICE,PROFILE=PRICE`, prices per hour.

    Raises:
        ValueError: for an unknown profile or a price that is not above 0.
    """
    options = []
    for item in text.split(","):
        name, equals, price = item.rpartition("=")
        try:
            options.append(Option(name, EngineConfig.for_gpu(name, **engine), float(price)))
        except ValueError as error:
            raise ValueError(f"--gpus {item!r}; must be PROFILE=PRICE PER HOUR: {error}") from None
        if not equals:
            raise ValueError(f"--gpus {item!r}; must be PROFILE=PRICE PER HOUR")
    return options


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="How many replicas of which GPU a workload needs, and what they cost.")
    p.add_argument("--workload", default="azure-chat", metavar="NAME", help="preset or trace (default: %(default)s)")
    p.add_argument("--skip-bad-rows", action="store_true", help="list malformed rows of a trace, do not refuse it")
    p.add_argument("--rate", type=float, metavar="R", help="requests/s (default: the workload's own)")
    p.add_argument(
        "--horizon", type=float, default=60.0, metavar="S", help="seconds of arrivals (default: %(default)g)"
    )
    p.add_argument("--slo", metavar="LIMITS", help="as ttft=1,tpot=0.1, in seconds (default: the workload's)")
    p.add_argument("--target", type=float, default=0.95, help="share of requests within it (default: %(default)g)")
    p.add_argument("--gpus", default=DEFAULT_GPUS, metavar="LIST", help="PROFILE=PRICE per hour (default: %(default)s)")
    p.add_argument("--schedulers", default="vllm_v1", metavar="LIST", help="as for evaluate.py (default: %(default)s)")
    p.add_argument("--agent", nargs="+", default=[], metavar="FILE", help="trained agents as schedulers as well")
    p.add_argument("--router", default="join_shortest_queue", help="(default: %(default)s)")
    p.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds to begin with (default: %(default)s)")
    p.add_argument("--most-replicas", type=int, default=256, metavar="N", help="(default: %(default)s)")
    p.add_argument("--prefix-caching", action="store_true", help="reuse KV blocks of common prompt prefixes")
    p.add_argument("--out", type=Path, default=Path("runs/plan"), metavar="FOLDER", help="(default: %(default)s)")
    return p


def make_plan(args: argparse.Namespace) -> FleetPlan:
    """The plan of a command line.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    (workload,) = parse_workloads(args.workload, args.horizon, args.skip_bad_rows).values()
    workload = workload if args.rate is None else workload.scaled(rate=args.rate)
    workload = workload if args.slo is None else workload.with_slo(parse_slo(args.slo))
    with tqdm(desc="simulated", unit=" fleets", leave=False) as bar:
        return plan(
            parse_gpus(args.gpus, prefix_caching=args.prefix_caching),
            parse_schedulers(args.schedulers) | load_agents(args.agent),
            workload,
            routers.get(args.router),
            args.target,
            report=lambda machine, scheduler, point: bar.update(),
            seeds=args.seeds,
            most_seeds=4 * args.seeds,
            most_replicas=args.most_replicas,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = sys.argv[1:] if arguments is None else arguments
    p = parser()
    args = p.parse_args(arguments)
    try:
        answer = make_plan(args)
    except (ValueError, FileNotFoundError) as error:
        p.error(str(error))
    answer.save(args.out / "plan.json")
    report = write_plan(answer, args.out / "report.html", shlex.join(["python", "plan.py", *arguments]))
    text = text_table(answer)
    (args.out / "table.txt").write_text(text, encoding="utf-8")
    print(text)
    print(f"Report: {report.resolve()}")


if __name__ == "__main__":
    main()
