"""Batch-time laws and memory sizes of real GPUs, one profile a combination of model, GPU and tensor parallel degree."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from llmsched_env.machine.batch_time import BatchTime, Hinge, Roofline, Staircase
from llmsched_env.machine.profile_files import read_profile
from llmsched_env.validation import check_choice, check_integer, check_number

LAWS = {"roofline": Roofline, "staircase": Staircase, "hinge": Hinge}


@dataclass(frozen=True, slots=True)
class GPUProfile:
    """One engine's hardware and model; the data file names the sources and licences of all numbers.

    Attributes:
        name: key of the profile, such as "llama-3.1-8b_h100-80gb_tp1_aic", or the stem of its file.
        model: model served, in 16-bit weights.
        gpu: GPU type.
        tensor_parallel: GPUs that form the engine.
        roofline: law of whole batches, attention included; the one to use unless tokens alone should count. Of a
            calibrated profile, the law that was chosen, which may be of another form.
        staircase: law of tokens alone with b0 = 128, fitted up to 1024 tokens without attention; of a calibrated
            profile with its best b0, fitted to its batches.
        hinge: the same with a hinge at its best b0.
        mape_pct: mean absolute relative error of the roofline on the batches it was fitted to, percent.
        gpu_memory_bytes: usable memory of one GPU.
        weight_bytes_per_gpu: model weights on one GPU.
        kv_bytes_per_token: KV cache of one token, over all GPUs.
        reserve_bytes_per_gpu: memory kept for activations and graphs.
        source: where the measurements come from.
        kv_tokens: tokens that the KV cache holds, of a calibrated profile of which only that is known. All five numbers
            of memory are None where nothing is known.
    """

    name: str
    model: str
    gpu: str
    tensor_parallel: int
    roofline: BatchTime
    staircase: Staircase
    hinge: Hinge
    mape_pct: float
    gpu_memory_bytes: int | None
    weight_bytes_per_gpu: int | None
    kv_bytes_per_token: int | None
    reserve_bytes_per_gpu: int | None
    source: str
    kv_tokens: int | None = None

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
    """Return a shipped profile, or one from a file.

    Args:
        name: name of a shipped profile, or path of a JSON file such as `calibrate` writes; of a file with several
            profiles, "path#name".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no profile of that name (the message lists the closest ones), or the file is malformed.
    """
    profiles = _profiles()
    if isinstance(name, Path) or (isinstance(name, str) and name not in profiles and ".json" in name):
        name, numbers = read_profile(str(name))
        chosen = LAWS[numbers.pop("form")]
    else:
        numbers, chosen = dict(profiles[check_choice("gpu profile", name, profiles)]), Roofline
    laws = {form: kind(**_in_seconds(numbers[form])) for form, kind in LAWS.items()}
    laws["roofline"] = next(law for law in laws.values() if isinstance(law, chosen))
    return GPUProfile(**{**numbers, **laws}, name=name)


def gpu_profiles() -> list[str]:
    """Return the names of all shipped profiles."""
    return list(_profiles())


def _in_seconds(law: dict[str, float]) -> dict[str, float]:
    """Convert a law from the data file's milliseconds; b0 is a number of tokens."""
    return {name: value if name == "b0" else value / 1e3 for name, value in law.items()}


@cache
def _profiles() -> dict[str, dict[str, Any]]:
    text = resources.files("llmsched_env").joinpath("data/gpu_profiles.json").read_text(encoding="utf-8")
    profiles: dict[str, dict[str, Any]] = json.loads(text)["profiles"]
    return profiles
