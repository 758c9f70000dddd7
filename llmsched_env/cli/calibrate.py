"""llmsched calibrate: a batch-time law from measured batches, or the speed of a profile from a serving run."""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer
from llmsched_env.cli.options import (
    Base,
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


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(PrintOptions):
    """What is fitted, and where it goes."""

    form: Form = "auto"
    rows_of: RowsOf = None
    memory_of: MemoryOf = None
    kv_tokens: KvTokens = None
    base: Base = None
    settings: Settings = None
    skip_bad_rows: SkipBadRows = False
    save: Save = None
    plot: Plot = None


_DEFAULTS = CalibrateOptions()


def calibrate(measurements: Measurements, *, options: CalibrateOptions = _DEFAULTS) -> Answer:
    """Fit a GPU profile to measured batches, or with --base its speed to a serving run."""
    _check(options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if options.base is None:
            batches = _on_batches(measurements, options)
            found: Calibration | SpeedCalibration = batches
            rows = [
                {"form": form, "mape_pct": own.mape_pct, "p95_pct": own.p95_pct, "chosen": own is batches.chosen}
                for form, own in batches.fits.items()
            ]
        else:
            found = speed = _on_run(measurements, options.base, options)
            rows = [{"latency": name, "error_pct": error} for name, error in speed.errors_pct.items()]
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    lines, facts = [found.report()], {}
    if options.plot is not None and options.base is None:
        from llmsched_env.calibration import plot_residuals

        facts["residuals"] = str(plot_residuals(batches.chosen, options.plot, batches.name))
    if options.save is not None:
        facts["profile"] = str(found.save(options.save))
    return Answer("\n".join([*lines, *(f"{name}: {path}" for name, path in facts.items())]), rows, facts)


def _check(options: CalibrateOptions) -> None:
    """Refuse options that would do nothing."""
    if options.base is None and options.settings is not None:
        raise ValueError("--settings belongs to a serving run; it needs --base")
    of_batches = ("plot", "rows_of", "memory_of", "kv_tokens")
    given = [name for name in of_batches if getattr(options, name) is not None]
    given += ["form"] if options.form != "auto" else []
    if options.base is not None and given:
        raise ValueError(f"--{given[0].replace('_', '-')} belongs to batches; it cannot be used with --base")


def _on_batches(measurements: Path, options: CalibrateOptions) -> "Calibration":
    from llmsched_env.calibration import calibrate as fit

    names = (options.form, options.rows_of, options.memory_of)
    return fit(measurements, *names, options.kv_tokens, options.skip_bad_rows)


def _on_run(measurements: Path, base: str, options: CalibrateOptions) -> "SpeedCalibration":
    import baselines
    from llmsched_env.calibration import calibrate_speed, engine_settings, read_run
    from llmsched_env.machine.profiles import gpu_profile

    settings = {} if options.settings is None else engine_settings(options.settings)
    scheduler = baselines.sarathi(token_budget=settings.get("token_budget", 2048))  # as vLLM's V1 composes batches
    return calibrate_speed(read_run(measurements, options.skip_bad_rows), gpu_profile(base), scheduler, settings)
