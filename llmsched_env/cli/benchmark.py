"""llmsched benchmark: learned policies against the best baselines tuned for each cell of the suite."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer
from llmsched_env.cli.options import (
    Beside,
    Cells,
    Clusters,
    IndexTrials,
    Load,
    NetworkRuns,
    Objective,
    Out,
    Policies,
    PrintOptions,
    Quick,
    RandomSites,
    RouterSeeds,
    Scheduler,
    Seeds,
    SitesFrom,
    Stage,
    Traces,
    Trials,
    TuningSeeds,
)
from llmsched_env.cli.run_file import command_line, write_run_file
from llmsched_env.evaluation.benchmark.options import BenchmarkOptions

if TYPE_CHECKING:
    from llmsched_env.evaluation.benchmark.results import CellResult
    from llmsched_env.evaluation.benchmark.sections import ReportSection

_CELLS = {"test": "results.json", "random": "random.json", "cluster": "cluster.json"}  # the cells of each stage


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BenchmarkCommand(BenchmarkOptions, PrintOptions):
    """The options of the benchmark as they are typed."""

    stage: Stage = BenchmarkOptions.stage
    quick: Quick = BenchmarkOptions.quick
    objective: Objective = BenchmarkOptions.objective
    policies: Policies = BenchmarkOptions.policies
    scheduler: Scheduler = BenchmarkOptions.scheduler
    beside: Beside = BenchmarkOptions.beside
    load: Load = BenchmarkOptions.load  # type: ignore[assignment]  # run_benchmark refuses "recorded"
    traces: Traces = BenchmarkOptions.traces
    cells: Cells = BenchmarkOptions.cells
    trials: Trials = BenchmarkOptions.trials
    index_trials: IndexTrials = BenchmarkOptions.index_trials
    tuning_seeds: TuningSeeds = BenchmarkOptions.tuning_seeds
    seeds: Seeds = BenchmarkOptions.seeds
    random_sites: RandomSites = BenchmarkOptions.random_sites
    sites_from: SitesFrom = BenchmarkOptions.sites_from
    clusters: Clusters = BenchmarkOptions.clusters
    network_runs: NetworkRuns = BenchmarkOptions.network_runs
    router_seeds: RouterSeeds = BenchmarkOptions.router_seeds
    out: Out = BenchmarkOptions.out


_DEFAULTS = BenchmarkCommand()


def benchmark(*, options: BenchmarkCommand = _DEFAULTS) -> Answer:
    """Run the stages of the benchmark, and write report.html, benchmark.md, verdicts.txt and headline.svg and .png."""
    from llmsched_env.evaluation.benchmark.run import run_benchmark

    command = command_line("benchmark", options)
    try:
        report = run_benchmark(options, command)
    except KeyboardInterrupt:
        write_run_file("benchmark", options, options.out)
        raise
    write_run_file("benchmark", options, options.out)
    rows = list(_cell_rows(options))
    facts: dict[str, Any] = {"command": command}
    if report is None:
        sections = _sections(options)
        texts = [_text(section) for section in sections]
        rows = rows or [
            dict(zip(table.header, row, strict=True)) for s in sections for table in s.tables[:1] for row in table.rows
        ]
        return Answer("\n".join([*texts, f"Results: {options.out.resolve()}"]), rows, facts)
    verdicts = (options.out / "verdicts.txt").read_text(encoding="utf-8")
    wrapped = [textwrap.fill(line, 100, subsequent_indent="    ") for line in verdicts.splitlines()]
    facts |= {"report": str(report.resolve()), "verdicts": verdicts.splitlines()}
    return Answer("\n".join([*wrapped, f"Report: {report.resolve()}"]), rows, facts)


def _cell_rows(options: BenchmarkCommand) -> Iterable[dict[str, Any]]:
    """A row for each cell and objective of the stages that were run."""
    from llmsched_env.evaluation.benchmark.stages import read_results

    everything = options.stage in ("all", "report")
    for stage, file in _CELLS.items():
        if (everything or stage == options.stage) and (options.out / file).exists():
            yield from (_cell_row(stage, cell) for cell in read_results(options.out / file))


def _cell_row(stage: str, cell: "CellResult") -> dict[str, Any]:
    from llmsched_env.evaluation.benchmark.results import POLICY, TUNED

    return {
        "stage": stage,
        "cell": cell.name,
        "objective": cell.objective,
        "held_out": cell.held_out,
        "policy": float(cell.runs[POLICY].mean()),
        "best_tuned_baseline": float(cell.runs[TUNED].mean()),
        "bound": float(cell.bound.mean()),
        **{f"difference_{name}": value for name, value in cell.difference._asdict().items()},
        "policy_setting": cell.settings[POLICY],
        "baseline_setting": cell.settings[TUNED],
    }


def _sections(options: BenchmarkCommand) -> list["ReportSection"]:
    """What the report will have about the stage that was run alone, where that is a few tables."""
    from llmsched_env.evaluation.benchmark.network_section import network_sections
    from llmsched_env.evaluation.benchmark.router_section import router_sections
    from llmsched_env.evaluation.benchmark.sections import trace_sections
    from llmsched_env.evaluation.benchmark.stages import read_azure

    if options.stage == "networks":
        return network_sections(options.out / "networks.json")
    if options.stage == "routers":
        return router_sections(options.out / "routers.json")
    if options.stage == "azure":
        return trace_sections(read_azure(options.out / "azure.json"))
    return []


def _text(section: "ReportSection") -> str:
    from llmsched_env.evaluation.rendering import rich_text
    from llmsched_env.evaluation.text_tables import TextColumn, fitting_tables

    parts = []
    for table in section.tables:
        first, *others = (
            TextColumn(name, [row[k] for row in table.rows], "left" if k in table.texts else "right")
            for k, name in enumerate(table.header)
        )
        parts += fitting_tables(table.title, first, others, table.caption)
    return rich_text(*parts)
