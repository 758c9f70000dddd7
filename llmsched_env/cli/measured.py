"""llmsched measured: measured serving runs of vLLM against their simulation, and the page of those that we quote."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer, wants_color
from llmsched_env.cli.options import Data, Engine, Evidence, Out, PrintOptions, ServingRuns, Settings
from llmsched_env.cli.run_file import command_line, write_run_file

if TYPE_CHECKING:
    from experiments.measured_run import ServingRun


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MeasuredOptions(PrintOptions):
    """The profile and settings, and where the report goes."""

    engine: Engine = ()
    settings: Settings = None
    evidence: Evidence = None
    data: Data = ()
    out: Out = Path("runs/measured")


_DEFAULTS = MeasuredOptions()


def measured(serving_runs: ServingRuns = (), *, options: MeasuredOptions = _DEFAULTS) -> Answer:
    """Simulate serving runs with a GPU profile as it is, with one fitted factor on its times, and calibrated.

    Without --engine, the profile is that of the run's model and hardware. Runs of the same requests and settings count
    as repeats, and their spread is shown. With --evidence, the runs and the page are those of the file.
    """
    if options.evidence is not None:
        return _evidence(serving_runs, options.evidence, options)
    if not serving_runs:
        raise ValueError("RUN must be given, or --evidence")
    if options.data:
        raise ValueError("--data belongs to --evidence")
    if len(options.engine) > 1:
        raise ValueError(f"--engine {','.join(options.engine)}: a run is compared with one profile")
    from experiments import measured_report
    from experiments.measured_run import ServingRun
    from experiments.measured_simulation import compare

    runs = [ServingRun.load(path, options.settings) for path in serving_runs]
    folders = _folders(runs, options.out)
    profile = options.engine[0] if options.engine else None
    text, rows, pages = "", [], []
    for k, (run, folder) in enumerate(zip(runs, folders, strict=True)):
        repeats = tuple(other for j, other in enumerate(runs) if j != k and run.repeats(other))
        found = compare(run, profile, repeats)
        write_run_file("measured", options, folder, serving_runs=serving_runs)
        pages.append(measured_report.report(found, folder).resolve())
        text += f"{measured_report.text_table(found, wants_color(options))}Report: {pages[-1]}\n"
        rows += [
            {"run": run.name, "metric": metric, "unit": "s", **values, "spread_pct": found.spread_pct.get(metric)}
            for metric, values in found.numbers.items()
        ]
        last = measured_report.facts(found)
    command = command_line("measured", options, ",".join(serving_runs))
    facts = last if len(runs) == 1 else {}
    return Answer(text.rstrip("\n"), rows, {"command": command, **facts, "reports": [str(page) for page in pages]})


def _evidence(serving_runs: tuple[str, ...], file: Path, options: MeasuredOptions) -> Answer:
    if serving_runs or options.engine or options.settings is not None:
        raise ValueError("--evidence names its runs, profiles and settings itself; give --data alone with it")
    from experiments.measured_evidence import update

    page, lines, rows = update(file, [Path(folder) for folder in options.data])
    return Answer("\n".join([*lines, f"Page: {page.resolve()}"]), rows, {"page": str(page.resolve())})


def _folders(runs: "list[ServingRun]", out: Path) -> list[Path]:
    names = [run.name for run in runs]
    return [
        out / (name if names.count(name) == 1 else f"{name}-{names[: k + 1].count(name)}")
        for k, name in enumerate(names)
    ]
