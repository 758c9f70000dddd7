"""From measured batches to a profile: the best batch-time law, and how well and where it fits."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmsched_env.calibration.batches import read_batches
from llmsched_env.machine.batches import Batches
from llmsched_env.machine.law_fit import FORMS, Fit, fit
from llmsched_env.machine.profile_files import law_in_ms, write_profile
from llmsched_env.machine.profiles import GPUProfile, gpu_profile, gpu_profiles
from llmsched_env.validation import check_choice, check_integer

_GOOD_ENOUGH = 0.5  # points of MAPE within which the form with fewer parameters is taken
_MAPE, _P95, _BIAS = 10.0, 30.0, 15.0  # percent; a form with larger errors is inadequate
_SLICES = {
    "total_tokens": "tokens",
    "decode_kv_tokens": "context tokens read by decodes",
    "prefill_attn_pairs": "query-key pairs of prefill",
}


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A profile fitted to measured batches.

    Attributes:
        name: of the profile.
        chosen: the fit to use.
        fits: the fits of all forms.
        memory: memory sizes of the profile; empty if unknown.
        about: model, gpu, tensor_parallel and source of the profile.
    """

    name: str
    chosen: Fit
    fits: dict[str, Fit]
    memory: dict[str, int]
    about: dict[str, Any]

    def shortcomings(self) -> list[str]:
        """Ways in which the chosen form is inadequate, one sentence each; empty if it is adequate."""
        return _shortcomings(self.chosen, self.fits)

    def save(self, path: str | Path) -> Path:
        """Write the profile as JSON; `EngineConfig.for_gpu` and `gpu_profile` accept its path."""
        laws = {form: law_in_ms(own.law) for form, own in self.fits.items()}
        quality = {"mape_pct": round(self.chosen.mape_pct, 3), "p95_ape_pct": round(self.chosen.p95_pct, 3)}
        own = {"form": self.chosen.form, **laws, **quality, "batches": len(self.chosen.batches), **self.memory}
        write_profile(Path(path), {**self.about, **own})
        return Path(path)

    def report(self) -> str:
        """Errors of all forms and the coefficients of the chosen one, as text."""
        lines = [f"{self.name}: {len(self.chosen.batches)} batches", "form        MAPE   95th percentile"]
        for form, own in self.fits.items():
            mark = "  <- chosen" if own is self.chosen else ""
            lines.append(f"{form:<10}{own.mape_pct:5.2f} %  {own.p95_pct:14.2f} %{mark}")
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
        form: "roofline", "staircase", "hinge", or "auto": the form with the least error, or one with fewer parameters
            whose MAPE is within half a percentage point of it.
        profile: which profile of the file; needed if it has several.
        memory_of: profile with the same model, GPU and memory; by default the shipped one of the same name.
        kv_tokens: size of the KV cache in tokens, if no profile has it.
        skip_bad_rows: leave out malformed rows of the file, with a warning.

    Warns:
        UserWarning: the form is inadequate; with the reasons.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a malformed file, too few batches, an unknown form or profile.
    """
    check_choice("form", form, ("auto", *FORMS))
    name, source = profile or "calibrated", "calibrated"
    if not isinstance(batches, Batches):
        path, by_name = Path(batches), read_batches(batches, skip_bad_rows)
        if profile is None and len(by_name) > 1:
            raise ValueError(f"{path} holds batches of {len(by_name)} profiles: choose one of {', '.join(by_name)}")
        name = check_choice(f"profile of {path}", profile or next(iter(by_name)), by_name)
        batches, source = by_name[name], f"calibrated on {len(by_name[name])} batches of {path.name}"
    fits = {own: fit(batches, own) for own in FORMS}
    chosen = fits[_best(fits) if form == "auto" else form]
    if memory_of is None and kv_tokens is None and name in gpu_profiles():
        memory_of = name
    about, memory = _known(memory_of)
    if kv_tokens is not None:
        memory = {"kv_tokens": check_integer("kv_tokens", kv_tokens, at_least=1, unit="tokens")}
    result = Calibration(name=name, chosen=chosen, fits=fits, memory=memory, about={**about, "source": source})
    if shortcomings := result.shortcomings():
        warnings.warn(f"the {chosen.form} form is inadequate: {'; '.join(shortcomings)}", UserWarning, stacklevel=2)
    return result


def _best(fits: dict[str, Fit]) -> str:
    least = min(own.mape_pct for own in fits.values())
    close = [form for form, own in fits.items() if own.mape_pct <= least + _GOOD_ENOUGH]
    return min(close, key=lambda form: (len(FORMS[form].coefficients), fits[form].mape_pct))


def _shortcomings(chosen: Fit, fits: dict[str, Fit]) -> list[str]:
    found = []
    better = min(fits, key=lambda form: fits[form].mape_pct)
    hint = "" if better == chosen.form else f", the {better} form has {fits[better].mape_pct:.1f} %"
    if chosen.mape_pct > _MAPE:
        found.append(f"its mean absolute error is {chosen.mape_pct:.1f} % (more than {_MAPE:g} %{hint})")
    elif chosen.p95_pct > _P95:
        found.append(f"5 % of batches are off by more than {chosen.p95_pct:.1f} %")
    worst = max(_biases(chosen), default=(0.0, ""), key=lambda bias: abs(bias[0]))
    if abs(worst[0]) > _BIAS:
        way = "slow" if worst[0] > 0 else "fast"
        found.append(f"batches with {worst[1]} are predicted {abs(worst[0]):.1f} % too {way} on average")
    return found


def _biases(own: Fit) -> list[tuple[float, str]]:
    """Mean error of each quarter of the batches, by tokens and by context."""
    biases = []
    for column, words in _SLICES.items():
        values = getattr(own.batches, column)
        present = values[values > 0]
        if len(present) < 20:
            continue
        edges = np.quantile(present, [0, 0.25, 0.5, 0.75, 1])
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            inside = (values > 0) & (values >= low) & (values <= high)
            biases.append((own.bias_pct(inside), f"{low:g} to {high:g} {words}"))
    return biases


def _known(memory_of: str | GPUProfile | None) -> tuple[dict[str, Any], dict[str, int]]:
    if memory_of is None:
        return {"model": "unknown", "gpu": "unknown", "tensor_parallel": 1}, {}
    own = memory_of if isinstance(memory_of, GPUProfile) else gpu_profile(memory_of)
    sizes = ("gpu_memory_bytes", "weight_bytes_per_gpu", "kv_bytes_per_token", "reserve_bytes_per_gpu", "kv_tokens")
    memory = {size: getattr(own, size) for size in sizes if getattr(own, size) is not None}
    return {"model": own.model, "gpu": own.gpu, "tensor_parallel": own.tensor_parallel}, memory
