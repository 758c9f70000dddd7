#!/usr/bin/env python3
"""Fit a batch-time law to measured batches, or the speed of a profile to a serving run, and write a profile file.

calibrate.py ROWS.csv --out mine.json --plot residuals.png
calibrate.py RUN.requests.jsonl --base PROFILE --settings RUN.meta.json --out mine.json
"""

import argparse
import sys
import warnings

import baselines
from llmsched_env.calibration import (
    Calibration,
    SpeedCalibration,
    calibrate,
    calibrate_speed,
    engine_settings,
    plot_residuals,
    read_run,
)
from llmsched_env.calibration.fit import FORMS
from llmsched_env.machine.profiles import gpu_profile


def main() -> None:
    """Read the measurements, print what was found, write the profile and the plot."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.plot and arguments.base:
        parser.error("--plot shows residuals of batches; it cannot be used with --base")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = _on_run(arguments) if arguments.base else _on_batches(arguments)
        except (OSError, ValueError) as error:
            parser.error(str(error))
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    print(result.report())
    if arguments.plot:
        print(f"residuals: {plot_residuals(result.chosen, arguments.plot, result.name)}")
    if arguments.out:
        print(f"profile: {result.save(arguments.out)}")


def _on_batches(arguments: argparse.Namespace) -> Calibration:
    names = (arguments.form, arguments.profile, arguments.memory_of)
    return calibrate(arguments.measurements, *names, arguments.kv_tokens, arguments.skip_bad_rows)


def _on_run(arguments: argparse.Namespace) -> SpeedCalibration:
    settings = engine_settings(arguments.settings) if arguments.settings else {}
    scheduler = baselines.sarathi(token_budget=settings.get("token_budget", 2048))  # as vLLM's V1 composes batches
    run = read_run(arguments.measurements, arguments.skip_bad_rows)
    return calibrate_speed(run, gpu_profile(arguments.base), scheduler, settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("measurements", help="CSV of batches, or per-request times of a serving run (with --base)")
    add("--out", help="profile file to write (JSON)")
    add("--form", default="auto", choices=("auto", *FORMS), help="form of the law; default: auto")
    add("--plot", help="file for the plot of residuals")
    add("--profile", help="which profile of the CSV, where it has several")
    add("--memory-of", help="profile whose model, GPU and memory the new one has")
    add("--kv-tokens", type=int, help="tokens that the KV cache holds")
    add("--base", help="profile whose speed is fitted to a serving run")
    add("--settings", help="JSON of the run's engine settings: batch limits and KV blocks")
    add("--skip-bad-rows", action="store_true", help="leave out malformed rows and list them")
    return parser


if __name__ == "__main__":
    main()
