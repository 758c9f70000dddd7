"""Profiles of any model on any GPU that aiconfigurator-core has kernels of: made once, checked, and kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmsched_env.machine.aiconfigurator import PACKAGE, Deployment, Estimator, canonical
from llmsched_env.machine.batches import Batches
from llmsched_env.machine.kept_profiles import kept_path
from llmsched_env.machine.law_fit import fit
from llmsched_env.machine.outliers import shortcomings
from llmsched_env.machine.priced_batches import LONGEST, drawn, priced, range_of
from llmsched_env.machine.profile_files import law_in_ms, write_profile
from llmsched_env.machine.profiles import GPUProfile, gpu_profile

_FITTED, _HELD_OUT = 3000, 500  # batches
_UNTESTED = (
    f"{PACKAGE} knows the architecture of this model, but was not tested with it: kernels of its sizes are interpolated"
)
_MAPE, _P95 = 4.0, 12.0  # percent; a law with larger errors is said to be inadequate


def make_profile(
    model: str, system: str, tp: int = 1, ep: int = 1, backend: str = "vllm", anew: bool = False
) -> GPUProfile:
    """Return the profile of a model on GPUs, made from the kernel times of aiconfigurator-core.

    It is made once and kept in `kept_folder()`; from then on the package is not needed for it.

    Args:
        model: as on Hugging Face, such as "Qwen/Qwen3-30B-A3B"; the part after the slash will do. Or a folder with the
            config.json of another model of a known architecture.
        system: GPU type, such as "h100_sxm".
        tp: GPUs of the engine (tensor parallel degree).
        ep: of these, how many the experts are spread over; it divides `tp`.
        backend: the engine whose kernels were measured: "vllm", "sglang" or "trtllm".
        anew: make it even if it is kept, for instance with a newer version of the package.

    Raises:
        ImportError: it is not kept, and aiconfigurator-core is not installed.
        ValueError: an unknown model or system, or degrees for which there are no measurements or too little memory.
    """
    wish = Deployment(model, system, tp, ep, backend)
    if not anew and kept_path(wish.name).exists():
        kept = gpu_profile(wish.name)
        if "/" not in wish.model_name or canonical(kept.model) == canonical(wish.model_name):
            return kept
    estimator = Estimator(wish)
    name = estimator.deployment.name
    write_profile(kept_path(name), _made(estimator))
    return gpu_profile(name)


def _made(estimator: Estimator) -> dict[str, Any]:
    """The profile as its file holds it."""
    own, memory, max_model_len = estimator.deployment, estimator.memory(), estimator.max_model_len()
    longest = LONGEST if max_model_len is None else min(LONGEST, max_model_len)
    batches = drawn(_FITTED, 0, longest)
    law = fit(priced(estimator, batches), "tabulated").law
    error = _errors(law, priced(estimator, drawn(_HELD_OUT, 1, longest)))
    mape, p95 = 100 * float(np.mean(error)), 100 * float(np.quantile(error, 0.95))
    versions = estimator.versions
    return {
        "model": own.model_name,
        "gpu": own.system,
        "tensor_parallel": own.tp,
        "expert_parallel": own.ep,
        "source": f"{PACKAGE} {versions[PACKAGE]}, kernels of {own.backend} {versions[own.backend]}",
        "form": "tabulated",
        "tabulated": _rounded(law_in_ms(law)),
        "mape_pct": round(mape, 3),
        "p95_ape_pct": round(p95, 3),
        **{name: size for name, size in memory.items() if name != "first_kv_bytes"},
        "max_model_len": max_model_len,
        "range": range_of(batches),
        "made_with": versions,
        "warnings": [
            *_fit_warnings(mape, p95),
            *_memory_warnings(memory),
            *([_UNTESTED] if own.in_folder else []),
            *shortcomings(estimator, longest),
        ],
    }


def _errors(law: Any, batches: Batches) -> np.ndarray:
    """Absolute relative errors, f8[n]."""
    errors: np.ndarray = np.abs(law.seconds(*batches.composition) / batches.seconds - 1)
    return errors


def _fit_warnings(mape: float, p95: float) -> list[str]:
    if mape <= _MAPE and p95 <= _P95:
        return []
    return [f"the law misses other batches by {mape:.1f} % on average, and 5 % of them by more than {p95:.1f} %"]


def _memory_warnings(memory: dict[str, int]) -> list[str]:
    first, later = memory["first_kv_bytes"], memory["kv_bytes_per_token"]
    if first <= 1.1 * later:
        return []
    return [
        f"the first tokens of a request take more memory than later ones ({first:,} against {later:,} bytes for the "
        "first: sliding windows, or the state of linear attention), and KV blocks are those of later ones: many short "
        "requests need more memory than is simulated"
    ]


def _rounded(law: Any) -> Any:
    """Six digits of each number."""
    if isinstance(law, dict):
        return {name: _rounded(value) for name, value in law.items()}
    return [_rounded(value) for value in law] if isinstance(law, list) else float(f"{law:.6g}")
