"""From measured batches to a profile: the best batch-time law, and how well and where it fits."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmsched_env.calibration.batches import rows_of
from llmsched_env.calibration.shortcomings import shortcomings
from llmsched_env.machine.batches import Batches
from llmsched_env.machine.law_fit import FORMS, Fit, fit
from llmsched_env.machine.profile_files import MEMORY, TOKENS_ALONE, law_in_ms, write_profile
from llmsched_env.machine.profiles import GPUProfile, gpu_profile, gpu_profiles
from llmsched_env.validation import check_choice, check_integer

_GOOD_ENOUGH = 0.5  # points of MAPE within which the form with fewer parameters is taken
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A profile fitted to measured batches.

    Attributes:
        name: of the profile.
        chosen: the fit to use.
        fits: the fits of all forms; without the tabulated one if there are too few batches for it.
        held_out_pct: by form, mean absolute relative error of batches that it was not fitted to, percent: each fifth of
            them by a fit to the others.
        memory: memory sizes of the profile; empty if unknown.
        about: model, gpu, tensor_parallel and source of the profile.
    """

    name: str
    chosen: Fit
    fits: dict[str, Fit]
    held_out_pct: dict[str, float]
    memory: dict[str, int]
    about: dict[str, Any]

    def shortcomings(self) -> list[str]:
        """Reasons to doubt the chosen law, one sentence each; empty if there are none."""
        return shortcomings(self.chosen, self.held_out_pct)

    def save(self, path: str | Path) -> Path:
        """Write the profile as JSON; `EngineConfig.for_gpu` and `gpu_profile` accept its path."""
        laws = {form: law_in_ms(self.fits[form].law) for form in (self.chosen.form, *TOKENS_ALONE)}
        quality = {"mape_pct": round(self.chosen.mape_pct, 3), "p95_ape_pct": round(self.chosen.p95_pct, 3)}
        own = {"form": self.chosen.form, **laws, **quality, "range": _range(self.chosen.batches), **self.memory}
        write_profile(Path(path), {**self.about, **own})
        return Path(path)

    def report(self) -> str:
        """Errors of all forms and the coefficients of the chosen one, as text."""
        lines = [
            f"{self.name}: {len(self.chosen.batches)} batches",
            "form       numbers    MAPE  held out  95th percentile  measured/predicted",
        ]
        for form, own in self.fits.items():
            mark = "  <- chosen" if own is self.chosen else ""
            errors = f"{own.mape_pct:6.2f} %{self.held_out_pct[form]:8.2f} %{own.p95_pct:15.2f} %"
            lines.append(f"{form:<10}{own.parameters:8d}{errors}{own.total_ratio:20.3f}{mark}")
        lines.append(repr(self.chosen.law))
        return "\n".join(lines)


def calibrate(
    batches: Batches | str | Path,
    form: str = "auto",
    profile: str | None = None,
    memory_of: str | GPUProfile | None = None,
    kv_tokens: int | None = None,
    skip_bad_rows: bool = False,
) -> Calibration:
    """Fit a batch-time law to measured batches.

    Args:
        batches: the batches, or a CSV file of them, see `read_batches`.
        form: "roofline", "staircase", "hinge", "tabulated", or "auto": the form with the least error on batches that it
            was not fitted to, or one with fewer parameters whose error is within half a percentage point of it.
        profile: which profile of the file; needed if it has several.
        memory_of: profile with the same model, GPU and memory; by default the shipped one of the same name.
        kv_tokens: size of the KV cache in tokens, if no profile has it.
        skip_bad_rows: leave out malformed rows of the file, with a warning.

    Warns:
        UserWarning: the law is to be doubted; with the reasons, see `Calibration.shortcomings`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a malformed file, too few batches, an unknown form or profile.
    """
    check_choice("form", form, ("auto", *FORMS))
    name, source = profile or "calibrated", "calibrated"
    if not isinstance(batches, Batches):
        path = Path(batches)
        name, batches = rows_of(path, profile, skip_bad_rows)
        source = f"calibrated on {len(batches)} batches of {path.name}"
    fits = _fits(batches, form)
    held_out = {own: _held_out_pct(batches, own) for own in fits}
    chosen = fits[_best(fits, held_out) if form == "auto" else form]
    if memory_of is None and kv_tokens is None and name in gpu_profiles():
        memory_of = name
    about, memory = _known(memory_of)
    if kv_tokens is not None:
        memory = {"kv_tokens": check_integer("kv_tokens", kv_tokens, at_least=1, unit="tokens")}
    about = {**about, "source": source}
    result = Calibration(name, chosen=chosen, fits=fits, held_out_pct=held_out, memory=memory, about=about)
    if doubts := result.shortcomings():
        warnings.warn(f"the {chosen.form} law is to be doubted: {'; '.join(doubts)}", UserWarning, stacklevel=2)
    return result


def _fits(batches: Batches, form: str) -> dict[str, Fit]:
    fits = {}
    for own in FORMS:
        try:
            fits[own] = fit(batches, own)
        except ValueError:
            if own != "tabulated" or form == own:
                raise
    return fits


def _held_out_pct(batches: Batches, form: str) -> float:
    """Mean absolute error of each fifth of the batches by a fit to the others, percent; nan if these are too few."""
    fold = np.random.default_rng(0).permutation(len(batches)) % _FOLDS
    errors = np.zeros(len(batches))
    for k in range(_FOLDS):
        test = batches.part(fold == k)
        try:
            law = fit(batches.part(fold != k), form).law
        except ValueError:
            return math.nan
        errors[fold == k] = law.seconds(*test.composition) / test.seconds - 1
    return float(100 * np.mean(np.abs(errors)))


def _best(fits: dict[str, Fit], held_out: dict[str, float]) -> str:
    """The form to take; where there are too few batches to hold some out, by the error on all of them."""
    judged = {form: error for form, error in held_out.items() if not math.isnan(error)}
    judged = judged or {form: own.mape_pct for form, own in fits.items() if form != "tabulated"}
    least = min(judged.values())
    close = [form for form, error in judged.items() if error <= least + _GOOD_ENOUGH]
    return min(close, key=lambda form: (fits[form].parameters, judged[form]))


def _range(batches: Batches) -> dict[str, tuple[float, float]]:
    """Least and most of each quantity, of the batches that have it."""
    names = ("total_tokens", "decode_kv_tokens", "prefill_attn_pairs", "prefill_context_tokens", "num_seqs")
    present = {name: (values := getattr(batches, name))[values > 0] for name in names}
    return {name: (float(values.min()), float(values.max())) for name, values in present.items() if len(values)}


_KEPT = (*MEMORY, "kv_tokens", "max_model_len", "expert_parallel")


def _known(memory_of: str | GPUProfile | None) -> tuple[dict[str, Any], dict[str, int]]:
    if memory_of is None:
        return {"model": "unknown", "gpu": "unknown", "tensor_parallel": 1}, {}
    own = memory_of if isinstance(memory_of, GPUProfile) else gpu_profile(memory_of)
    memory = {name: getattr(own, name) for name in _KEPT if getattr(own, name) is not None}
    return {"model": own.model, "gpu": own.gpu, "tensor_parallel": own.tensor_parallel}, memory
