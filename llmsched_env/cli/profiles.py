"""llmsched profiles: the GPU profiles that come with the project, and one in detail."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer
from llmsched_env.cli.options import PrintOptions, Profile

if TYPE_CHECKING:
    from llmsched_env.machine.profiles import GPUProfile

_REFERENCE = "azure-chat"  # the workload whose capacity is shown


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ProfilesOptions(PrintOptions):
    """How the result is printed."""


_DEFAULTS = ProfilesOptions()


def profiles(profile: Profile = None, *, options: ProfilesOptions = _DEFAULTS) -> Answer:
    """List the GPU profiles, or those whose names contain PROFILE; show a single one in detail."""
    from llmsched_env.machine.profiles import gpu_profile, gpu_profiles

    names = gpu_profiles()
    part = "" if profile is None else profile.lower()
    found = [profile] if profile in names else [name for name in names if part in name.lower()]
    if len(found) > 1:
        rows = [_row(gpu_profile(name)) for name in found]
        return Answer(_table(rows), rows)
    one = gpu_profile(found[0] if found else str(profile))  # a file, or an error with the closest names
    row = _row(one) | _details(one)
    return Answer("\n".join(f"{name:<24}{_text(value)}" for name, value in row.items()), [row])


def _row(profile: "GPUProfile") -> dict[str, Any]:
    from llmsched_env.machine.config import EngineConfig
    from llmsched_env.theory import capacity
    from llmsched_env.workloads import preset

    blocks = profile.kv_blocks()
    engine = EngineConfig(profile.roofline, kv_blocks=blocks)
    return {
        "name": profile.name,
        "model": profile.model,
        "gpu": profile.gpu,
        "tensor_parallel": profile.tensor_parallel,
        "gpu_memory_gb": None if profile.gpu_memory_bytes is None else profile.gpu_memory_bytes / 1e9,
        "kv_blocks": blocks,
        f"{_REFERENCE} requests/s": capacity(engine, preset(_REFERENCE)),
    }


def _details(profile: "GPUProfile") -> dict[str, Any]:
    return {
        "kv_bytes_per_token": profile.kv_bytes_per_token,
        "weight_bytes_per_gpu": profile.weight_bytes_per_gpu,
        "reserve_bytes_per_gpu": profile.reserve_bytes_per_gpu,
        "batch_time": str(profile.roofline),
        "mape_pct": profile.mape_pct,
        "tokens_alone": str(profile.staircase),
        "source": profile.source,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    from llmsched_env.evaluation.rendering import rich_text
    from llmsched_env.evaluation.text_tables import TextColumn, fitting_tables

    headers = {
        "tensor_parallel": "TP",
        "gpu_memory_gb": "Memory\nGB",
        "kv_blocks": "KV\nblocks",
        f"{_REFERENCE} requests/s": f"{_REFERENCE}\nrequests/s",
    }
    columns = [TextColumn(text, [_text(row[name]) for row in rows]) for name, text in headers.items()]
    return rich_text(*fitting_tables("", TextColumn("Profile", [row["name"] for row in rows], "left"), columns))


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
