"""llmsched tune: the best parameters of schedulers on tuning seeds, and how much they gain on test seeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer
from llmsched_env.cli.evaluate import EvaluateOptions, loads_of, reference_of, report
from llmsched_env.cli.inputs import closed, engines_of, workloads_of
from llmsched_env.cli.options import Objective, Out, Trials, TuningSeeds
from llmsched_env.cli.run_file import write_run_file

if TYPE_CHECKING:
    from llmsched_env.evaluation.cases import Load
    from llmsched_env.evaluation.comparison import SchedulerByCell
    from llmsched_env.evaluation.tuning import Tuned
    from llmsched_env.simulator.scheduler import Scheduler

Found = Mapping[str, Mapping[str, Mapping[tuple[str, "Load"], "Tuned"]]]
"""By objective, scheduler, and (workload, load)."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TuneOptions(EvaluateOptions):
    """What is tuned on what, and for what."""

    objective: Objective = ("slo_attainment",)
    tuning_seeds: TuningSeeds = 5
    trials: Trials = 60
    out: Out = Path("runs/tuning")


_DEFAULTS = TuneOptions()


def tune(*, options: TuneOptions = _DEFAULTS) -> Answer:
    """Tune schedulers for each workload and load, and compare tuned with default parameters.

    Settings are chosen on tuning seeds and compared on test seeds; of a trace on its first and second half.
    """
    from llmsched_env.evaluation import OBJECTIVES, TEST_SEEDS, TUNING_SEEDS, compare, seed_range, tune_all
    from llmsched_env.evaluation.naming import schedulers_by_name
    from llmsched_env.validation import check_choice

    for objective in options.objective:
        check_choice("--objective", objective, OBJECTIVES)
    schedulers = schedulers_by_name(options.scheduler)
    reference = reference_of(options.reference, schedulers)
    halves = {name: workload.split((0.5, 0.5)) for name, workload in workloads_of(options).items()}
    first, second = (
        {name: closed(half[k], options.concurrency, options.horizon) for name, half in halves.items()} for k in (0, 1)
    )  # seeds part random ones
    loads = loads_of(options)
    engines, seeds = engines_of(options), seed_range(TEST_SEEDS, options.seeds)
    tuning_seeds = seed_range(TUNING_SEEDS, options.tuning_seeds)
    write_run_file("tune", options, options.out)
    comparisons = {}
    for name, engine in engines.items():
        found = {
            objective: tune_all(
                schedulers, first, loads, engine, objective,
                seeds=tuning_seeds, trials=options.trials, folder=options.out,
            )
            for objective in options.objective
        }  # fmt: skip
        settings, notes = default_and_tuned(schedulers, found)
        comparisons[name] = compare(
            settings, second, loads, seeds, engine, folder=options.out, notes=notes, progress=True
        )
    return report(comparisons, reference, options, "tune")


def default_and_tuned(
    schedulers: Mapping[str, "Scheduler"], found: Found
) -> tuple[dict[str, "Scheduler | SchedulerByCell"], dict[str, str]]:
    """Every scheduler with default parameters and tuned for each cell, and notes on the tuned ones."""
    settings: dict[str, Scheduler | SchedulerByCell] = {}
    notes = {}
    for name, scheduler in schedulers.items():
        settings[name] = scheduler
        for objective, of_objective in found.items():
            if name in of_objective:
                tuned = f"{name} (tuned)" if len(found) == 1 else f"{name} (tuned, {objective})"
                settings[tuned] = {cell: outcome.scheduler for cell, outcome in of_objective[name].items()}
                notes[tuned] = "; ".join(f"{own.note} ({own.file})" for own in of_objective[name].values())
    return settings, notes
