"""What aiconfigurator-core knows: which models on which GPUs, and the step times, memory and context of each.

The package (Apache-2.0, NVIDIA) holds kernel times measured on real GPUs and adds them up to whole steps. It is
optional: `pip install 'llmsched_env[profiles]'`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmsched_env.validation import check_choice, check_integer, did_you_mean

PACKAGE = "aiconfigurator-core"
INSTALL = "pip install 'llmsched_env[profiles]'"
BACKENDS = ("vllm", "sglang", "trtllm")
TOKEN_BUDGET = 8192  # tokens of a batch for which memory for activations is reserved; vLLM's default on large GPUs
_MEASURE = "batches that you measured yourself become a profile by `llmsched calibrate`"
_LIST = "`llmsched profiles --can-make` lists them"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model on the GPUs of one engine.

    Args:
        model: as on Hugging Face, such as "Qwen/Qwen3-30B-A3B"; the part after the slash will do. Or a folder with the
            config.json of another model of a known architecture.
        system: GPU type as aiconfigurator-core calls it, such as "h100_sxm".
        tp: GPUs of the engine (tensor parallel degree).
        ep: of these, how many the experts are spread over; it divides `tp`.
        backend: the engine whose kernels were measured: "vllm", "sglang" or "trtllm".

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    model: str
    system: str
    tp: int = 1
    ep: int = 1
    backend: str = "vllm"

    def __post_init__(self) -> None:
        for name in ("model", "system"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name} must be a name, got {getattr(self, name)!r}")
        check_integer("tp", self.tp, at_least=1, unit="GPUs")
        check_integer("ep", self.ep, at_least=1, unit="GPUs")
        if self.tp % self.ep:
            raise ValueError(f"ep must divide tp = {self.tp}, got {self.ep}")
        check_choice("backend", self.backend, BACKENDS)

    @property
    def in_folder(self) -> bool:
        """Whether the model is a folder with its configuration."""
        return (Path(self.model) / "config.json").is_file()

    @property
    def model_name(self) -> str:
        """The model as profiles name it: of a folder, its name."""
        return Path(self.model).resolve().name if self.in_folder else self.model

    @property
    def name(self) -> str:
        """What its profile is called: qwen3-30b-a3b_h100-sxm_tp1_ep1_vllm."""
        model, system = canonical(self.model_name).split("/")[-1], self.system.replace("_", "-")
        return f"{model}_{system}_tp{self.tp}_ep{self.ep}_{self.backend}".lower()


def canonical(model: str) -> str:
    """A model's name in one spelling: meta-llama/Meta-Llama-3.1-8B is also called meta-llama/Llama-3.1-8B."""
    owner, slash, own = model.lower().rpartition("/")
    return owner + slash + own.removeprefix("meta-")


def installed() -> bool:
    """Whether the package is there."""
    return find_spec("aiconfigurator_core") is not None


def package_version() -> str:
    """Version of the package."""
    from importlib.metadata import version

    return version(PACKAGE)


def check_installed(wish: str) -> None:
    """Refuse a wish that needs the package where it is missing.

    Raises:
        ImportError: saying how to get it, and what there is without it.
    """
    if not installed():
        raise ImportError(f"{wish} needs {PACKAGE}: {INSTALL}. Without it: {_MEASURE}")


def models_by_system(backend: str = "vllm") -> dict[str, list[str]]:
    """Return the models that profiles can be made of, by system.

    Raises:
        ImportError: the package is not installed.
        ValueError: an unknown backend.
    """
    check_choice("backend", backend, BACKENDS)
    check_installed("listing what profiles can be made of")
    return {system: sorted(models) for system, models in _supported(backend).items()}


class Estimator:
    """Step times, memory and context of one deployment.

    Args:
        deployment: what is served on what.

    Attributes:
        deployment: with the model's full name.
        versions: of the package, and of the engine whose kernels were measured.

    Raises:
        ImportError: the package is not installed.
        ValueError: a model, a system or degrees that it has no measurements for.
    """

    def __init__(self, deployment: Deployment) -> None:
        check_installed(f"making a profile of {deployment.model} on {deployment.system}")
        self.deployment = _resolved(deployment)
        backend = _current_version(self.deployment.system, self.deployment.backend)
        self.versions = {PACKAGE: package_version(), self.deployment.backend: backend}
        own = self.deployment
        settings = {
            "schema_version": 1,
            "model_name": own.model,
            "system_name": own.system,
            "backend": own.backend,
            "backend_version": backend,
            "tp_size": own.tp,
            "pp_size": 1,
            "attention_dp_size": 1,
            "moe_tp_size": own.tp // own.ep,
            "moe_ep_size": own.ep,
        }
        with _quiet(), self._refusals():
            from aiconfigurator_core.sdk import RustForwardPassPerfModel

            self._model = RustForwardPassPerfModel.from_native(settings)
        self.seconds(prompts=1, prompt_tokens=1, decodes=1, decode_context=1)  # are there kernels of these degrees?

    def seconds(
        self,
        decodes: int = 0,
        decode_context: int = 0,
        prompts: int = 0,
        prompt_tokens: int = 0,
        prompt_context: int = 0,
    ) -> float:
        """Return the seconds of one step.

        Args:
            decodes: requests that get one token.
            decode_context: tokens before it, of each.
            prompts: requests whose prompts are read.
            prompt_tokens: tokens of the prompt that the step reads, of each.
            prompt_context: tokens before these, of each.

        Raises:
            ValueError: the package has no measurements of the kernels.
        """
        scheduled = {
            "num_prefill_requests": prompts,
            "sum_prefill_tokens": prompts * prompt_tokens,
            "sum_prefill_kv_tokens": prompts * prompt_context,
            "num_decode_requests": decodes,
            "sum_decode_kv_tokens": decodes * decode_context,
        }
        with _quiet(), self._refusals():
            return float(self._model.estimate_forward_pass_time_ms({"scheduled_requests": scheduled})) / 1e3

    def max_model_len(self) -> int | None:
        """Return the context length of the model; None if its configuration does not say."""
        from aiconfigurator_core.sdk.utils import get_model_config_from_model_path

        with _quiet():
            return int(get_model_config_from_model_path(self.deployment.model).get("context") or 0) or None

    def memory(self) -> dict[str, int]:
        """Return the memory sizes of a profile in bytes, and `first_kv_bytes`: KV cache of a request's first token.

        Raises:
            ValueError: the weights leave no room for a KV cache.
        """
        whole = self._kv_cache(1.0)
        parts = whole["memory_breakdown"]
        weights = parts["weights_bytes"]
        reserve = sum(parts.values()) - weights
        # Sliding windows and the state of linear attention make the first tokens of a request dearer than later ones;
        # the cache is full of later ones.
        half = self._kv_cache((1.0 + (weights + reserve) / whole["total_gpu_capacity_bytes"]) / 2)
        freed = whole["total_kv_size_bytes"] - half["total_kv_size_bytes"]
        first = whole["kv_size_per_token_bytes"]
        later = freed / max(1, whole["total_kv_size_tokens"] - half["total_kv_size_tokens"])
        later = first if abs(later / first - 1) < 0.01 else later
        return {
            "gpu_memory_bytes": whole["total_gpu_capacity_bytes"],
            "weight_bytes_per_gpu": weights,
            "reserve_bytes_per_gpu": reserve,
            "kv_bytes_per_token": round(later * self.deployment.tp),
            "first_kv_bytes": round(first * self.deployment.tp),
        }

    def _kv_cache(self, share: float) -> dict[str, Any]:
        own = self.deployment
        with _quiet(), self._refusals():
            from aiconfigurator_core.sdk import estimate_kv_cache

            found: dict[str, Any] = estimate_kv_cache(
                own.model,
                own.system,
                own.backend,
                self.versions[own.backend],
                max_num_tokens=TOKEN_BUDGET,
                max_batch_size=256,
                memory_fraction_kind="of_free" if own.backend == "trtllm" else "of_total",
                memory_fraction_value=share,
                tp_size=own.tp,
                moe_tp_size=own.tp // own.ep,
                moe_ep_size=own.ep,
            )
        return found

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """What the package refuses is a bad deployment."""
        try:
            yield
        except ImportError:
            raise
        except Exception as error:
            own = self.deployment
            raise ValueError(
                f"{PACKAGE} cannot price {own.model} on {own.system} with tp={own.tp}, ep={own.ep}, "
                f"backend={own.backend}: {str(error).strip()[:300]}. Try another tp or ep; {_MEASURE}"
            ) from None


def _resolved(wish: Deployment) -> Deployment:
    """The deployment with the full names of its model and system."""
    supported = _supported(wish.backend)
    systems = [system for system in supported if system.lower() == wish.system.lower().replace("-", "_")]
    if not systems:
        raise ValueError(
            f"system must be one that {PACKAGE} has {wish.backend} kernels of, got {wish.system!r}; "
            f"{did_you_mean(wish.system, supported)} ({_LIST}; {_MEASURE})"
        )
    if wish.in_folder:
        return replace(wish, system=systems[0])
    models = supported[systems[0]]
    own = canonical(wish.model)
    full = [model for model in models if own in (canonical(model), canonical(model).split("/")[-1])]
    if not full:
        raise ValueError(
            f"model must be one that {PACKAGE} has {wish.backend} kernels of on {systems[0]}, got {wish.model!r}; "
            f"{did_you_mean(wish.model.split('/')[-1], sorted(models))} ({_LIST}; for another model give the folder "
            f"with its config.json; {_MEASURE})"
        )
    return replace(wish, model=full[0], system=systems[0])


@cache
def _supported(backend: str) -> dict[str, list[str]]:
    """Models by system for which the package's own tests found measured kernels of the current version."""
    from aiconfigurator_core.sdk.common import get_support_matrix

    found: dict[str, list[str]] = {}
    for row in get_support_matrix():
        measured = row["Status"] == "PASS" and row.get("Source", "silicon") == "silicon"
        if measured and row["Mode"] == "agg" and row["Backend"] == backend:
            system, models = row["System"], found.get(row["System"], [])
            if row["HuggingFaceID"] not in models and row["Version"] == _current_version(system, backend):
                found.setdefault(system, []).append(row["HuggingFaceID"])
    return found


@cache
def _current_version(system: str, backend: str) -> str:
    from aiconfigurator_core.sdk.perf_database import resolve_query_version

    with _quiet():
        return str(resolve_query_version(system, backend, "current"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the package's messages about tables that are not asked for."""
    logger = logging.getLogger("aiconfigurator_core")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
