"""llmsched reproduce: the experiments of arXiv 2504.07347, as a table and as a report in one HTML file."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer, wants_color
from llmsched_env.cli.options import Only, Out, PrintOptions
from llmsched_env.cli.run_file import command_line, write_run_file

if TYPE_CHECKING:
    from experiments.experiment import Experiment


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReproduceOptions(PrintOptions):
    """What is run, and where it goes."""

    only: Only = ()
    out: Out = Path("runs/reproduction")


_DEFAULTS = ReproduceOptions()


def reproduce(*, options: ReproduceOptions = _DEFAULTS) -> Answer:
    """Run the experiments, each once; the exit status is 1 if a check fails or is undecided."""
    from experiments.report import all_checks, text_table, write_report
    from experiments.runner import run_all, versions
    from llmsched_env.files import write_text

    chosen, command = experiments_of(options), command_line("reproduce", options)
    write_run_file("reproduce", options, options.out)
    start = time.perf_counter()
    outcomes = run_all(chosen.values(), options.out)
    facts = [
        ("Command", command),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
        ("This run took", f"{time.perf_counter() - start:.0f} s, without what earlier runs had finished"),
    ]
    report = write_report(chosen, outcomes, options.out / "report.html", facts)
    write_text(options.out / "table.txt", text_table(outcomes))
    rows = [
        {"experiment": name, **dataclasses.asdict(check)}
        for name, outcome in outcomes.items()
        for check in outcome.checks
    ]
    return Answer(
        f"{text_table(outcomes, wants_color(options))}Report: {report.resolve()}",
        rows,
        {"command": command, "report": str(report.resolve())},
        int(any(check.failed for check in all_checks(outcomes))),
    )


def experiments_of(options: ReproduceOptions) -> dict[str, "Experiment"]:
    """The experiments to run, in the order of the report.

    Raises:
        ValueError: for an unknown name, with the closest known ones.
    """
    from experiments.registry import EXPERIMENTS
    from llmsched_env.validation import check_choice

    for name in options.only:
        check_choice("experiment", name, EXPERIMENTS)
    return {name: one for name, one in EXPERIMENTS.items() if not options.only or name in options.only}
