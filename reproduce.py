"""Reproduce the experiments of arXiv 2504.07347: a table on the screen, and a report in one HTML file.

python reproduce.py
python reproduce.py --only fig8,theorem2

The exit status is 1 if a check fails or is undecided.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.experiment import Experiment, Outcome
from experiments.registry import EXPERIMENTS
from experiments.report import all_checks, text_table, write_report
from experiments.runner import run_all, versions
from llmsched_env.validation import check_choice


def parse_only(text: str | None) -> dict[str, Experiment]:
    """The experiments of a list of names, in the order of the report; None: all.

    Raises:
        ValueError: for an unknown name, with the closest known ones.
    """
    if text is None:
        return EXPERIMENTS
    names = {check_choice("--only", name.strip(), tuple(EXPERIMENTS)) for name in text.split(",")}
    return {name: experiment for name, experiment in EXPERIMENTS.items() if name in names}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Reproduce the experiments of arXiv 2504.07347.")
    p.add_argument("--only", metavar="LIST", help=f"experiments to run and report, of {', '.join(EXPERIMENTS)}")
    p.add_argument(
        "--out",
        type=Path,
        default=Path("runs/reproduction"),
        metavar="FOLDER",
        help="where report.html, table.txt and finished experiments go (default: %(default)s)",
    )
    return p


def reproduce(experiments: dict[str, Experiment], out: Path, command: str) -> dict[str, Outcome]:
    """Run experiments, write table and report, print the table; the outcomes by name."""
    start = time.perf_counter()
    outcomes = run_all(experiments.values(), out)
    facts = [
        ("Command", command),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
        ("This run took", f"{time.perf_counter() - start:.0f} s, without what earlier runs had finished"),
    ]
    report = write_report(experiments, outcomes, out / "report.html", facts)
    table = text_table(outcomes)
    (out / "table.txt").write_text(table, encoding="utf-8")
    print(text_table(outcomes, color=True) if sys.stdout.isatty() else table)
    print(f"Report: {report.resolve()}")
    return outcomes


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = sys.argv[1:] if arguments is None else arguments
    p = parser()
    args = p.parse_args(arguments)
    try:
        experiments = parse_only(args.only)
    except ValueError as error:
        p.error(str(error))
    try:
        outcomes = reproduce(experiments, args.out, shlex.join(["python", "reproduce.py", *arguments]))
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command continues where this one stopped.")
    sys.exit(int(any(check.failed for check in all_checks(outcomes))))


if __name__ == "__main__":
    main()
