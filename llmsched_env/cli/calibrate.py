"""llmsched calibrate: a batch-time law from measured batches, or a known profile made to fit an engine."""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer
from llmsched_env.cli.options import (
    Base,
    Belief,
    Form,
    KvTokens,
    Measurements,
    MemoryOf,
    Plot,
    PrintOptions,
    RowsOf,
    Save,
    Settings,
    SkipBadRows,
)

if TYPE_CHECKING:
    from llmsched_env.calibration import Calibration, SpeedCalibration
    from llmsched_env.machine.profiles import GPUProfile


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(PrintOptions):
    """What is fitted, and where it goes."""

    form: Form = "auto"
    rows_of: RowsOf = None
    memory_of: MemoryOf = None
    kv_tokens: KvTokens = None
    base: Base = None
    belief: Belief = None
    settings: Settings = None
    skip_bad_rows: SkipBadRows = False
    save: Save = None
    plot: Plot = None


_BUDGET = 2048  # tokens of a batch, the default of vLLM
_DEFAULTS = CalibrateOptions()


def calibrate(measurements: Measurements, *, options: CalibrateOptions = _DEFAULTS) -> Answer:
    """Fit a GPU profile to measured batches; with --base a known one to the batches or a serving run of an engine."""
    _check(options)
    facts: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if options.base is None:
            batches = _on_batches(measurements, options)
            found: Calibration | SpeedCalibration = batches
            rows = [
                {
                    "form": form,
                    "parameters": own.parameters,
                    "mape_pct": own.mape_pct,
                    "held_out_pct": batches.held_out_pct[form],
                    "p95_pct": own.p95_pct,
                    "total_ratio": own.total_ratio,
                    "chosen": own is batches.chosen,
                }
                for form, own in batches.fits.items()
            ]
        else:
            found = speed = _on_engine(measurements, options.base, options)
            rows = [{"metric": name, "error_pct": error} for name, error in speed.errors_pct.items()]
            facts |= {"factor": speed.factor, "host_overhead": speed.host_overhead, "step_noise": speed.step_noise}
            if speed.steps is not None:
                facts |= {"total_ratio": speed.steps.total_ratio, "intervals": speed.steps.intervals}
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    files = {}
    if options.plot is not None and options.base is None:
        from llmsched_env.calibration import plot_residuals

        files["residuals"] = str(plot_residuals(batches.chosen, options.plot, batches.name))
    if options.save is not None:
        files["profile"] = str(found.save(options.save))
    text = "\n".join([found.report(), *(f"{name}: {path}" for name, path in files.items())])
    return Answer(text, rows, {**facts, **files})


def _check(options: CalibrateOptions) -> None:
    """Refuse options that would do nothing."""
    of_engines = [name for name in ("settings", "belief") if getattr(options, name) is not None]
    if options.base is None and of_engines:
        raise ValueError(f"--{of_engines[0]} belongs to the calibration of a known profile; it needs --base")
    of_batches = ("plot", "memory_of", "kv_tokens")
    given = [name for name in of_batches if getattr(options, name) is not None]
    given += ["form"] if options.form != "auto" else []
    if options.base is not None and given:
        raise ValueError(f"--{given[0].replace('_', '-')} belongs to a new profile; it cannot be used with --base")


def _on_batches(measurements: Path, options: CalibrateOptions) -> "Calibration":
    from llmsched_env.calibration import calibrate as fit

    names = (options.form, options.rows_of, options.memory_of)
    return fit(measurements, *names, options.kv_tokens, options.skip_bad_rows)


def _on_engine(measurements: Path, base: str, options: CalibrateOptions) -> "SpeedCalibration":
    import baselines
    from llmsched_env.calibration import calibrate_speed, holds_batches, read_run, rows_of
    from llmsched_env.machine.profiles import gpu_profile

    profile, belief = gpu_profile(base), options.belief or "measured"
    if holds_batches(measurements):
        if options.settings is not None:
            raise ValueError(f"--settings belongs to a serving run; {measurements} holds batches")
        return calibrate_speed(rows_of(measurements, options.rows_of, options.skip_bad_rows)[1], profile, belief=belief)
    if options.rows_of is not None:
        raise ValueError(f"--rows-of belongs to a CSV of batches; {measurements} is none")
    settings = {} if options.settings is None else _said(options.settings, profile)
    if "token_budget" not in settings:
        warnings.warn(f"no --settings with max_num_batched_tokens: {_BUDGET} are assumed", UserWarning, stacklevel=2)
    scheduler = baselines.sarathi(token_budget=settings.get("token_budget", _BUDGET))  # as vLLM's V1 composes batches
    return calibrate_speed(read_run(measurements, options.skip_bad_rows), profile, scheduler, settings, belief)


def _said(path: Path, profile: "GPUProfile") -> dict[str, Any]:
    """Arguments of `EngineConfig` from the settings of a run, with a warning of each that is assumed or left out."""
    from llmsched_env.calibration import VllmSettings

    said = VllmSettings.read(path)
    if said.replicas != 1:
        raise ValueError(f"{path}: data_parallel_size must be 1, got {said.replicas}: one engine is calibrated")
    settings, notes = said.engine_of(profile)
    for note in (*said.notes, *notes):
        warnings.warn(str(note), UserWarning, stacklevel=2)
    return settings
