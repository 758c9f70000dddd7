#!/usr/bin/env python3
"""Fit a batch-time law to measured batches and write a profile file."""

import argparse
import sys
import warnings
from pathlib import Path

from llmsched_env.calibration import calibrate, plot_residuals
from llmsched_env.calibration.fit import FORMS


def main() -> None:
    """Read the batches, print the fits, write the profile and the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "batches", help="CSV with total_tokens, decode_kv_tokens, prefill_attn_pairs, prefill_context_tokens, iter_ms"
    )
    parser.add_argument("--out", help="profile file to write (JSON)")
    parser.add_argument("--form", default="auto", choices=("auto", *FORMS), help="default: auto")
    parser.add_argument("--plot", help="file for the plot of residuals")
    parser.add_argument("--profile", help="which profile of the CSV, where it has several")
    parser.add_argument("--memory-of", help="profile whose model, GPU and memory this one has")
    parser.add_argument("--kv-tokens", type=int, help="tokens that the KV cache holds")
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave out malformed rows and list them")
    arguments = parser.parse_args()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = calibrate(
                arguments.batches,
                arguments.form,
                arguments.profile,
                arguments.memory_of,
                arguments.kv_tokens,
                arguments.skip_bad_rows,
            )
        except (OSError, ValueError) as error:
            parser.error(str(error))
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    print(result.report())
    if arguments.plot:
        print(f"residuals: {plot_residuals(result.chosen, arguments.plot, result.name)}")
    if arguments.out:
        print(f"profile: {result.save(Path(arguments.out))}")


if __name__ == "__main__":
    main()
