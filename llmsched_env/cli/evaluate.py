"""llmsched evaluate: schedulers side by side, as a table and as a report in one HTML file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer, wants_color
from llmsched_env.cli.inputs import closed, engines_of, workloads_of
from llmsched_env.cli.options import (
    EngineOptions,
    Load,
    Out,
    PrintOptions,
    Reference,
    Scheduler,
    Seeds,
    WorkloadOptions,
)
from llmsched_env.cli.run_file import command_line, write_run_file

if TYPE_CHECKING:
    from llmsched_env.evaluation import Comparison
    from llmsched_env.evaluation.cases import Load as CaseLoad

DEFAULT_REFERENCE = "sarathi"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(PrintOptions, EngineOptions, WorkloadOptions):
    """What is compared on what."""

    load: Load = (0.8, 0.95)
    scheduler: Scheduler = ("fastertransformer", "vllm_prefill_first", "orca", "sarathi")
    reference: Reference = None
    seeds: Seeds = 10
    out: Out = Path("runs/evaluation")


_DEFAULTS = EvaluateOptions()


def evaluate(*, options: EvaluateOptions = _DEFAULTS) -> Answer:
    """Compare schedulers and trained policies on the same requests."""
    from llmsched_env.evaluation import TEST_SEEDS, compare, seed_range
    from llmsched_env.evaluation.naming import schedulers_by_name

    schedulers = schedulers_by_name(options.scheduler)
    reference = reference_of(options.reference, schedulers)
    loads = loads_of(options)
    workloads = {
        name: closed(each, options.concurrency, options.horizon) for name, each in workloads_of(options).items()
    }
    engines = engines_of(options)
    seeds = seed_range(TEST_SEEDS, options.seeds)
    write_run_file("evaluate", options, options.out)
    comparisons = {
        name: compare(schedulers, workloads, loads, seeds, engine, folder=options.out, progress=True)
        for name, engine in engines.items()
    }
    return report(comparisons, reference, options, "evaluate")


def loads_of(options: EvaluateOptions) -> "tuple[CaseLoad, ...]":
    """The loads to run; users in a closed loop have none.

    Raises:
        ValueError: if both are given.
    """
    if options.concurrency is None:
        return options.load
    if options.load not in (_DEFAULTS.load, ("recorded",)):
        raise ValueError(f"--load {options.load}: users in a closed loop (--concurrency) have no load; leave it out")
    return ("recorded",)


def reference_of(name: str | None, schedulers: Iterable[str]) -> str | None:
    """The scheduler that the others are compared with.

    Raises:
        ValueError: if it does not run.
    """
    from llmsched_env.validation import check_choice

    known = tuple(schedulers)
    if name is None:
        return DEFAULT_REFERENCE if DEFAULT_REFERENCE in known else None
    return check_choice("--reference", name, known)


def report(
    comparisons: Mapping[str, "Comparison"], reference: str | None, options: EvaluateOptions, command: str
) -> Answer:
    """Write table.txt and report.html, with several engines into a folder for each; returns what to print."""
    from llmsched_env.evaluation import text_table, write_report
    from llmsched_env.files import write_text

    texts, rows, paths = [], [], []
    for name, comparison in comparisons.items():
        folder = options.out if len(comparisons) == 1 else options.out / comparison.engine.name
        write_text(folder / "table.txt", text_table(comparison, reference))
        path = write_report(
            comparison, folder / "report.html", reference=reference, command=command_line(command, options)
        )
        heading = [] if len(comparisons) == 1 else [name, ""]
        texts += [*heading, text_table(comparison, reference, wants_color(options)), f"Report: {path.resolve()}"]
        rows += [{"engine": name, **row} for row in comparison_rows(comparison)]
        paths.append(str(path.resolve()))
    return Answer("\n".join(texts), rows, {"command": command_line(command, options), "reports": paths})


def comparison_rows(comparison: "Comparison") -> list[dict[str, Any]]:
    """A row for each scheduler, workload and load: every metric with the half width of its 95 % interval."""
    rows = []
    for cell in comparison.cells.values():
        row: dict[str, Any] = {
            "workload": cell.workload,
            "load": cell.load,
            "scheduler": cell.scheduler,
            "rate": cell.rate,
            "capacity": cell.capacity,
            "seeds": len(cell.seeds),
            "stable": cell.stability.verdict,
            "stalls": cell.stalls,
        }
        for metric in cell.metrics:
            row[metric], row[f"{metric}_half_width"] = cell.interval(metric)
        rows.append(row)
    return rows
