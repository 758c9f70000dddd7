"""Compare schedulers and trained agents: a table on the screen, and a report in one HTML file.

python evaluate.py --schedulers orca,"sarathi(token_budget=256)" --loads 0.8,0.95
python evaluate.py --workloads trace.csv --loads recorded --agent runs/mine/model.zip
python evaluate.py --tune slo_attainment --loads 0.9
"""

from __future__ import annotations

import argparse
import ast
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import baselines
from llmsched_env.evaluation import (
    OBJECTIVES,
    TEST_SEEDS,
    TUNING_SEEDS,
    compare,
    seed_range,
    text_table,
    tune_all,
    write_report,
)
from llmsched_env.evaluation.cases import Load
from llmsched_env.evaluation.compare import SchedulerByCell
from llmsched_env.evaluation.tuning import SEEDS, TRIALS, Tuned
from llmsched_env.machine.config import EngineConfig
from llmsched_env.policies import learned_index, pretrained
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.slo import SLO
from llmsched_env.workloads import LengthPredictor, Workload, load_trace, preset

DEFAULT_SCHEDULERS = "fastertransformer,vllm_prefill_first,orca,sarathi"
DEFAULT_ENGINE = "llama-3.1-8b_h100-80gb_tp1_aic"
DEFAULT_REFERENCE = "sarathi"
PRETRAINED = "pretrained"  # in a list of schedulers: the trained policies of single engines that come with the project
DEFAULT_SLO = SLO(ttft=1.0, tpot=0.1)


def parse_schedulers(text: str) -> dict[str, Scheduler]:
    """Schedulers of a list such as `orca,sarathi(token_budget=256),pretrained`, by what was written for each.

    Raises:
        ValueError: for anything but names from the registry with numbers as parameters.
    """
    try:
        items = ast.parse(f"[{text}]", mode="eval").body.elts  # type: ignore[attr-defined]
        found = {}
        for item in items:
            name = ast.unparse(item).replace(" ", "")
            found |= _pretrained() if name == PRETRAINED else {name: _scheduler(item)}
        return found
    except (SyntaxError, AttributeError, TypeError):
        raise ValueError(f"--schedulers {text!r}; must be like orca,sarathi(token_budget=256)") from None


def _pretrained() -> dict[str, Scheduler]:
    policies = [pretrained.load(name) for name in pretrained.NAMES]
    return {policy.name: policy for policy in policies}


def _scheduler(item: ast.expr) -> Scheduler:
    if isinstance(item, ast.Call) and not item.args:
        values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in item.keywords}
        return baselines.get(item.func.id)(**values)  # type: ignore[attr-defined]
    return baselines.get(item.id)  # type: ignore[attr-defined]


def parse_workloads(
    text: str, horizon: float, skip_bad_rows: bool = False, predictions: str | None = None
) -> dict[str, Workload]:
    """Workloads of a list of preset names and trace files, by name; traces without targets get `DEFAULT_SLO`.

    With `predictions`, as for `parse_predictor`, their requests have predicted output lengths.

    Raises:
        ValueError: for an unknown preset or a malformed trace.
        FileNotFoundError: for a path (a name with a suffix or a slash) that does not exist.
    """
    workloads = {}
    for name in text.split(","):
        is_path = bool(Path(name).suffix) or "/" in name
        workload = load_trace(name, skip_bad_rows=skip_bad_rows) if is_path else preset(name, horizon=horizon)
        if workload.slo is None and np.isinf(workload.sample(0).ttft_slo).all():
            workload = workload.with_slo(DEFAULT_SLO)
        if predictions is not None:
            workload = workload.with_predictor(parse_predictor(predictions, workload))
        workloads[workload.name] = workload
    return workloads


def parse_predictor(text: str, workload: Workload) -> LengthPredictor:
    """The predictor of output lengths that is as good as `text` says: `kendall=0.56`, `spearman=0.7` or `log_sd=0.5`.

    Raises:
        ValueError: for another measure, or a number that it does not allow.
    """
    measure, _, number = text.partition("=")
    try:
        quality = float(number)
    except ValueError:
        measure = ""
    if measure == "log_sd":
        return LengthPredictor(quality)
    if measure in ("kendall", "spearman"):
        return LengthPredictor.calibrated(workload, **{measure: quality})
    raise ValueError(f"--predict {text!r}; must be like kendall=0.56, spearman=0.7 or log_sd=0.5")


def parse_loads(text: str) -> list[Load]:
    """Loads of a list of numbers and `recorded`.

    Raises:
        ValueError: for anything else.
    """
    try:
        return [item if item == "recorded" else float(item) for item in text.split(",")]
    except ValueError:
        raise ValueError(f"--loads {text!r}; must be a list of numbers > 0 and 'recorded'") from None


def parse_slo(text: str) -> SLO:
    """SLO of a list such as `ttft=1,tpot=0.1`, in seconds.

    Raises:
        ValueError: for an unknown name or a limit that is not a number above 0.
    """
    try:
        limits = {name: float(limit) for name, limit in (item.split("=") for item in text.split(","))}
    except ValueError:
        limits = {}
    if not limits or not limits.keys() <= {"ttft", "tpot", "e2el"}:
        raise ValueError(f"--slo {text!r}; must be like ttft=1,tpot=0.1: limits of ttft, tpot and e2el in seconds")
    return SLO(**limits)


def load_agents(paths: Sequence[str]) -> dict[str, Scheduler]:
    """Trained agents (.zip) and steered index policies (.npz), by the last folder and name of their files."""
    if not paths:
        return {}
    from agents import load_agent  # here, so that comparing baselines does not need torch

    found = {}
    for path in map(Path, paths):
        load = learned_index.load if path.suffix == ".npz" else load_agent
        found["/".join(path.with_suffix("").parts[-2:])] = load(path)
    return found


def default_and_tuned(
    schedulers: Mapping[str, Scheduler], found: Mapping[str, Mapping[tuple[str, Load], Tuned]]
) -> tuple[dict[str, Scheduler | SchedulerByCell], dict[str, str]]:
    """Every scheduler with default parameters and tuned for each cell, and notes on the tuned ones."""
    settings: dict[str, Scheduler | SchedulerByCell] = {}
    notes = {}
    for name, scheduler in schedulers.items():
        settings[name] = scheduler
        if name in found:
            tuned = f"{name} (tuned)"
            settings[tuned] = {cell: outcome.scheduler for cell, outcome in found[name].items()}
            notes[tuned] = "; ".join(f"{outcome.note} ({outcome.file})" for outcome in found[name].values())
    return settings, notes


def _engine(args: argparse.Namespace) -> EngineConfig:
    memory = {} if args.kv_blocks is None else {"kv_blocks": args.kv_blocks}
    return EngineConfig.for_gpu(
        args.engine, prefix_caching=args.prefix_caching, schedule_ahead=int(args.schedule_ahead), **memory
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Compare schedulers and trained agents on shared workloads.")
    p.add_argument(
        "--schedulers",
        default=DEFAULT_SCHEDULERS,
        metavar="LIST",
        help="names, with parameters in brackets if wanted: sarathi(token_budget=256), or "
        "pretrained for the trained policies of single engines that come with the project (default: %(default)s)",
    )
    p.add_argument("--agent", nargs="+", default=[], metavar="FILE", help="trained agents to compare as well")
    p.add_argument(
        "--workloads", default="azure-chat", metavar="LIST", help="presets and trace files (default: %(default)s)"
    )
    p.add_argument(
        "--skip-bad-rows", action="store_true", help="count and list malformed rows of traces instead of refusing them"
    )
    p.add_argument(
        "--predict",
        metavar="QUALITY",
        help="predict output lengths with an error such that kendall=0.56 or spearman=0.7 is their rank correlation "
        "with the true ones, or log_sd=0.5 the deviation of log(predicted/true) (default: no predictions)",
    )
    p.add_argument(
        "--loads",
        default="0.8,0.95",
        metavar="LIST",
        help="rates over the reference capacity; 'recorded': as the workload is (default: %(default)s)",
    )
    p.add_argument(
        "--seeds", type=int, default=10, metavar="N", help="seeds of random workloads (default: %(default)s)"
    )
    p.add_argument("--engine", default=DEFAULT_ENGINE, metavar="PROFILE", help="GPU profile (default: %(default)s)")
    p.add_argument("--kv-blocks", type=int, metavar="N", help="KV blocks (default: what the GPU's memory leaves)")
    p.add_argument("--prefix-caching", action="store_true", help="reuse KV blocks of common prompt prefixes")
    p.add_argument(
        "--schedule-ahead",
        action="store_true",
        help="decide a batch while the one before runs, as vLLM does by default",
    )
    p.add_argument(
        "--horizon",
        type=float,
        default=120.0,
        metavar="S",
        help="seconds of arrivals of random workloads; traces are run whole (default: %(default)g)",
    )
    p.add_argument(
        "--slo",
        metavar="LIMITS",
        help="limits for all requests in seconds, as ttft=1,tpot=0.1 (default: those of the workload; a trace "
        f"without any: ttft={DEFAULT_SLO.ttft:g},tpot={DEFAULT_SLO.tpot:g})",
    )
    p.add_argument(
        "--tune",
        nargs="?",
        const="slo_attainment",
        choices=tuple(OBJECTIVES),
        metavar="OBJECTIVE",
        help="tune every scheduler for each workload and load on tuning seeds (a trace: on its first half), and "
        f"compare its default and tuned parameters on test seeds (the second half); by one of {', '.join(OBJECTIVES)} "
        "(default: %(const)s)",
    )
    p.add_argument(
        "--tune-trials", type=int, default=TRIALS, metavar="N", help="settings to try for each (default: %(default)s)"
    )
    p.add_argument(
        "--tune-seeds", type=int, default=SEEDS, metavar="N", help="seeds to tune each on (default: %(default)s)"
    )
    p.add_argument(
        "--reference",
        metavar="NAME",
        help=f"scheduler that the others are compared with (default: {DEFAULT_REFERENCE}, if it runs)",
    )
    p.add_argument(
        "--out",
        type=Path,
        default=Path("runs/evaluation"),
        metavar="FOLDER",
        help="where report.html, table.txt and finished cells go (default: %(default)s)",
    )
    return p


def evaluate(args: argparse.Namespace, command: str) -> Path:
    """Run the comparison of a command line, print its table and return the path of the report."""
    schedulers = parse_schedulers(args.schedulers) | load_agents(args.agent)
    reference = args.reference or (DEFAULT_REFERENCE if DEFAULT_REFERENCE in schedulers else None)
    if reference is not None and reference not in schedulers:
        raise ValueError(f"--reference {reference!r}; must be one of {', '.join(schedulers)}")
    workloads = parse_workloads(args.workloads, args.horizon, args.skip_bad_rows, args.predict)
    loads, engine = parse_loads(args.loads), _engine(args)
    slo = None if args.slo is None else parse_slo(args.slo)
    seeds, settings, notes = seed_range(TEST_SEEDS, args.seeds), schedulers, {}
    if args.tune is not None:
        halves = {name: workload.split((0.5, 0.5)) for name, workload in workloads.items()}  # seeds part random ones
        workloads = {name: second for name, (_, second) in halves.items()}
        found = tune_all(
            schedulers, {name: first for name, (first, _) in halves.items()}, loads, engine, args.tune,
            seeds=seed_range(TUNING_SEEDS, args.tune_seeds), trials=args.tune_trials, slo=slo, folder=args.out,
        )  # fmt: skip
        settings, notes = default_and_tuned(schedulers, found)
    comparison = compare(settings, workloads, loads, seeds, engine, slo=slo, folder=args.out, notes=notes)
    table = text_table(comparison, reference)
    (args.out / "table.txt").write_text(table, encoding="utf-8")
    print(text_table(comparison, reference, color=True) if sys.stdout.isatty() else table)
    return write_report(comparison, args.out / "report.html", reference=reference, command=command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = sys.argv[1:] if arguments is None else arguments
    p = parser()
    args = p.parse_args(arguments)
    try:
        report = evaluate(args, shlex.join(["python", "evaluate.py", *arguments]))
    except (ValueError, FileNotFoundError) as error:
        p.error(str(error))
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command continues where this one stopped.")
    print(f"Report: {report.resolve()}")


if __name__ == "__main__":
    main()
