"""Batch-time laws and memory sizes of real GPUs, one profile a combination of model, GPU and parallel degrees."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from llmsched_env.machine.batch_time import BatchTime, Hinge, Roofline, Staircase
from llmsched_env.machine.kept_profiles import kept_path, kept_profiles
from llmsched_env.machine.profile_files import TOKENS_ALONE, host_seconds, law_in_seconds, read_profile
from llmsched_env.machine.tabulated_law import TabulatedLaw
from llmsched_env.validation import check_integer, check_number, did_you_mean

LAWS: dict[str, type[BatchTime]] = {
    "roofline": Roofline,
    "staircase": Staircase,
    "hinge": Hinge,
    "tabulated": TabulatedLaw,
}


@dataclass(frozen=True, slots=True)
class GPUProfile:
    """One engine's hardware and model; the data file names the sources and licences of the shipped numbers.

    Attributes:
        name: key of the profile, such as "llama-3.1-8b_h100-80gb_tp1_aic", or the stem of its file.
        model: model served; in 16-bit weights, unless its name says otherwise.
        gpu: GPU type.
        tensor_parallel: GPUs that form the engine.
        batch_time: law of whole batches, attention included; the one to use unless tokens alone should count.
        staircase: law of tokens alone with b0 = 128, fitted up to 1024 tokens without attention; of a calibrated
            profile with its best b0, fitted to its batches. None where no such law was fitted.
        hinge: the same with a hinge at its best b0.
        mape_pct: mean absolute relative error of `batch_time`, percent: on the batches it was fitted to, or, of a
            profile made by `make_profile`, on others.
        gpu_memory_bytes: usable memory of one GPU.
        weight_bytes_per_gpu: model weights on one GPU.
        kv_bytes_per_token: KV cache of one token, over all GPUs.
        reserve_bytes_per_gpu: memory kept for activations and graphs.
        source: where the measurements come from.
        kv_tokens: tokens that the KV cache holds, of a calibrated profile of which only that is known. All five numbers
            of memory are None where nothing is known.
        max_model_len: tokens of prompt and output that the model was built for; None if unknown.
        host_overhead: host seconds (a batch, a request in it) of a calibrated profile.
        step_noise: standard deviation of the logarithm of step times, of a calibrated profile.
        believed: the law that schedulers take `batch_time` for; None: they know it, and the host time.
        believed_host_overhead: with `believed`, what they take the host time for.
        expert_parallel: GPUs that the experts are spread over; 1 where each GPU holds a slice of every expert.
        p95_ape_pct: 95th percentile of the error that `mape_pct` is the mean of; None if unknown.
        range: (least, most) of the batches that the law was fitted to, by quantity; empty if unknown.
        made_with: versions of what priced these batches; empty if nothing did.
        warnings: what looked wrong with these prices, one sentence each.
    """

    name: str
    model: str
    gpu: str
    tensor_parallel: int
    batch_time: BatchTime
    staircase: Staircase | None
    hinge: Hinge | None
    mape_pct: float
    gpu_memory_bytes: int | None
    weight_bytes_per_gpu: int | None
    kv_bytes_per_token: int | None
    reserve_bytes_per_gpu: int | None
    source: str
    kv_tokens: int | None = None
    max_model_len: int | None = None
    host_overhead: tuple[float, float] = (0.0, 0.0)
    step_noise: float = 0.0
    believed: BatchTime | None = None
    believed_host_overhead: tuple[float, float] = (0.0, 0.0)
    expert_parallel: int = 1
    p95_ape_pct: float | None = None
    range: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)
    made_with: Mapping[str, str] = field(default_factory=dict, hash=False)
    warnings: tuple[str, ...] = ()

    def kv_blocks(self, gpu_memory_utilization: float = 0.9, block_size: int = 16) -> int | None:
        """Return the number of KV blocks of `block_size` tokens that fit next to weights and reserve.

        Of a profile that states its KV tokens the utilisation does not matter; None if nothing is known of its memory.

        Raises:
            ValueError: the utilisation is outside (0, 1], or leaves no room for a single block.
        """
        check_number("gpu_memory_utilization", gpu_memory_utilization, above=0, at_most=1)
        check_integer("block_size", block_size, at_least=1, unit="tokens")
        if (
            self.gpu_memory_bytes is None
            or self.weight_bytes_per_gpu is None
            or self.reserve_bytes_per_gpu is None
            or self.kv_bytes_per_token is None
        ):
            return None if self.kv_tokens is None else max(1, self.kv_tokens // block_size)
        taken = self.weight_bytes_per_gpu + self.reserve_bytes_per_gpu
        free = (gpu_memory_utilization * self.gpu_memory_bytes - taken) * self.tensor_parallel
        blocks = math.floor(free / (self.kv_bytes_per_token * block_size))
        if blocks < 1:
            raise ValueError(
                f"gpu_memory_utilization must be > {taken / self.gpu_memory_bytes:.3f} on {self.name} to leave room "
                f"for a KV block of {block_size} tokens next to weights and reserve, got {gpu_memory_utilization:g}"
            )
        return blocks


def gpu_profile(name: str | Path) -> GPUProfile:
    """Return a shipped profile, one that was made and kept, or one from a file.

    Args:
        name: name of a shipped or a kept profile, or path of a JSON file such as `calibrate` writes; of a file with
            several profiles, "path#name".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no profile of that name (the message lists the closest ones), or the file is malformed.
    """
    shipped = _profiles()
    if isinstance(name, str) and name in shipped:
        return _profile(name, shipped[name])
    if not isinstance(name, Path) and ".json" not in str(name):
        kept = kept_profiles()
        if name not in kept:
            meant = did_you_mean(str(name).split("/")[-1], [*shipped, *kept])
            raise ValueError(
                f"gpu profile must be one of the known names, got {name!r}; {meant} (Other models and GPUs: "
                "EngineConfig.for_gpu(model=..., system=...) makes a profile, `llmsched profiles --can-make` lists "
                "what of, and `llmsched calibrate` fits one to measured batches.)"
            )
        name = kept_path(name)
    own, numbers = read_profile(str(name))
    try:
        return _profile(own, numbers)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def gpu_profiles() -> list[str]:
    """Return the names of all shipped profiles; those that you made are listed by `kept_profiles`."""
    return list(_profiles())


def _profile(name: str, numbers: dict[str, Any]) -> GPUProfile:
    numbers = dict(numbers)
    form = numbers.pop("form", "roofline")
    laws: dict[str, Any] = {own: numbers.pop(own, None) for own in LAWS}
    made = {own: LAWS[own](**law_in_seconds(law)) for own, law in laws.items() if law is not None}
    numbers["host_overhead"] = host_seconds(numbers.pop("host_overhead_ms", (0.0, 0.0)))
    if (believed := dict(numbers.pop("believed", None) or {})) != {}:
        kind, host = LAWS[believed.pop("form")], believed.pop("host_overhead_ms")
        numbers |= {"believed": kind(**law_in_seconds(believed)), "believed_host_overhead": host_seconds(host)}
    alone = {own: made.get(own) for own in TOKENS_ALONE}
    return GPUProfile(**numbers, **alone, batch_time=made[form], name=name)  # type: ignore[arg-type]


@cache
def _profiles() -> dict[str, dict[str, Any]]:
    text = resources.files("llmsched_env").joinpath("data/gpu_profiles.json").read_text(encoding="utf-8")
    profiles: dict[str, dict[str, Any]] = json.loads(text)["profiles"]
    return profiles
