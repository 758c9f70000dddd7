"""llmsched measured: a measured serving run of vLLM against its simulation."""

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer, wants_color
from llmsched_env.cli.options import Engine, Out, PrintOptions, ServingRun
from llmsched_env.cli.run_file import command_line, write_run_file


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MeasuredOptions(PrintOptions):
    """The profile, and where the report goes."""

    engine: Engine = ()
    out: Out = Path("runs/measured")


_DEFAULTS = MeasuredOptions()


def measured(serving_run: ServingRun, *, options: MeasuredOptions = _DEFAULTS) -> Answer:
    """Simulate a serving run with the batch times of a GPU profile, and with all of them times one fitted factor.

    Without --engine, the profile is that of the run's model and hardware.
    """
    from experiments import measured_report
    from experiments.measured_run import ServingRun as Run
    from experiments.measured_run import engine_of, fitted_factor, simulated

    if len(options.engine) > 1:
        raise ValueError(f"--engine {','.join(options.engine)}: a run is compared with one profile")
    run = Run.load(serving_run)
    try:
        profile = options.engine[0] if options.engine else run.profile
    except KeyError as error:
        raise ValueError(f"--engine must be given: the settings of {run.name} have no {error}") from None
    engine_of(run, profile)
    folder = options.out / run.name
    write_run_file("measured", options, folder, serving_run=serving_run)
    factor = fitted_factor(run, profile)
    results = {"as shipped": simulated(run, profile), "one factor fitted": simulated(run, profile, factor)}
    page = measured_report.report(run, profile, factor, results, folder)
    numbers = measured_report.compare(run, results)
    text = measured_report.text_table(numbers, f"{profile}, fitted factor {factor:.3f}", wants_color(options))
    rows = [{"metric": metric, "unit": "s", **values} for metric, values in numbers.items()]
    facts = {
        "command": command_line("measured", options, serving_run),
        "profile": profile,
        "factor": factor,
        "report": str(page.resolve()),
    }
    return Answer(f"{text}Report: {page.resolve()}", rows, facts)
