"""llmsched profiles: the GPU profiles that there are, one in detail, and new ones of any model on any GPU."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer
from llmsched_env.cli.options import Backend, CanMake, Ep, Make, PrintOptions, Profile, System, Tp

if TYPE_CHECKING:
    from llmsched_env.machine.profiles import GPUProfile

_REFERENCE = "azure-chat"  # the workload whose capacity is shown


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ProfilesOptions(PrintOptions):
    """What is made, and how the result is printed."""

    can_make: CanMake = False
    make: Make = None
    system: System = None
    tp: Tp = 1
    ep: Ep = 1
    backend: Backend = "vllm"


_DEFAULTS = ProfilesOptions()


def profiles(profile: Profile = None, *, options: ProfilesOptions = _DEFAULTS) -> Answer:
    """List the GPU profiles, shipped and kept, or those whose names contain PROFILE; show a single one in detail."""
    from llmsched_env.machine.kept_profiles import kept_profiles
    from llmsched_env.machine.profiles import gpu_profile, gpu_profiles

    _check(profile, options)
    if options.can_make:
        return _makeable("" if profile is None else profile.lower(), options.backend)
    if options.make is not None:
        return _made(options)
    names = [*gpu_profiles(), *kept_profiles()]
    part = "" if profile is None else profile.lower()
    found = [profile] if profile in names else [name for name in names if part in name.lower()]
    if len(found) > 1:
        rows = [_row(profile) for profile in _readable(found)]
        return Answer(_table(rows), rows)
    return _in_detail(gpu_profile(found[0] if found else str(profile)))  # a file, or an error with the closest names


def _check(profile: str | None, options: ProfilesOptions) -> None:
    if options.make is None:
        if options.system is not None or (options.tp, options.ep) != (1, 1):
            raise ValueError("--system, --tp and --ep say what --make MODEL is made for; --make is missing")
        if options.backend != "vllm" and not options.can_make:
            raise ValueError("--backend says what --make MODEL or --can-make is asked for; both are missing")
        return
    if options.can_make or profile is not None:
        raise ValueError("--make MODEL makes one profile: neither --can-make nor the name of a profile goes with it")
    if options.system is None:
        raise ValueError("--make needs --system NAME; llmsched profiles --can-make lists the systems")


def _readable(names: list[str]) -> Iterator["GPUProfile"]:
    """The profiles, without kept files that are none."""
    from llmsched_env.machine.profiles import gpu_profile

    for name in names:
        try:
            yield gpu_profile(name)
        except ValueError as error:
            print(f"warning: {error}", file=sys.stderr)


def _made(options: ProfilesOptions) -> Answer:
    from llmsched_env.machine.kept_profiles import kept_path
    from llmsched_env.machine.make_profile import make_profile

    profile = make_profile(str(options.make), str(options.system), options.tp, options.ep, options.backend, anew=True)
    path = kept_path(profile.name)
    return _in_detail(profile, f"kept in {path}; use it as --engine {profile.name}", {"path": path})


def _makeable(part: str, backend: str) -> Answer:
    """Models by system; those that `part` is in the name of, or all models of the systems that it is in the name of."""
    from llmsched_env.evaluation.rendering import rich_text
    from llmsched_env.evaluation.text_tables import TextColumn, fitting_tables
    from llmsched_env.machine.aiconfigurator import models_by_system

    by_system = models_by_system(backend)
    systems = sorted(system for system in by_system if part in system)
    models = sorted({model for models in by_system.values() for model in models if part in model.lower()})
    if systems:
        models = sorted({model for system in systems for model in by_system[system]})
    elif models:
        systems = sorted(by_system)
    else:
        raise ValueError(f"no model and no system has {part!r} in its name; systems: {', '.join(sorted(by_system))}")
    rows = [
        {"model": model, "systems": [system for system in systems if model in by_system[system]], "backend": backend}
        for model in models
    ]
    columns = [
        TextColumn(system.replace("_", "\n"), ["x" if system in row["systems"] else "" for row in rows])
        for system in systems
    ]
    text = rich_text(*fitting_tables("", TextColumn("Model", models, "left"), columns))
    return Answer(f"{text}\nllmsched profiles --make MODEL --system NAME --tp N makes one", rows)


def _in_detail(profile: "GPUProfile", first_line: str = "", facts: dict[str, Any] | None = None) -> Answer:
    row = _row(profile) | _details(profile)
    lines = [first_line] if first_line else []
    for name, value in row.items():
        texts = value if isinstance(value, list) else [_text(value)]
        parts = [part for text in texts for part in wrap(text, 76)]
        lines += [f"{name if k == 0 else '':<24}{part}" for k, part in enumerate(parts)]
    return Answer("\n".join(lines), [row], facts or {})


def _row(profile: "GPUProfile") -> dict[str, Any]:
    from llmsched_env.machine.config import EngineConfig
    from llmsched_env.machine.kept_profiles import kept_profiles
    from llmsched_env.machine.profiles import gpu_profiles
    from llmsched_env.theory import capacity
    from llmsched_env.workloads import preset

    origins = {"shipped": gpu_profiles(), "kept": kept_profiles()}
    blocks = profile.kv_blocks()
    engine = EngineConfig(profile.batch_time, kv_blocks=blocks, host_overhead=profile.host_overhead)
    return {
        "name": profile.name,
        "model": profile.model,
        "gpu": profile.gpu,
        "tensor_parallel": profile.tensor_parallel,
        "gpu_memory_gb": None if profile.gpu_memory_bytes is None else profile.gpu_memory_bytes / 1e9,
        "kv_blocks": blocks,
        f"{_REFERENCE} requests/s": capacity(engine, preset(_REFERENCE)),
        "origin": next((origin for origin, names in origins.items() if profile.name in names), "file"),
    }


def _details(profile: "GPUProfile") -> dict[str, Any]:
    return {
        "expert_parallel": profile.expert_parallel,
        "max_model_len": profile.max_model_len,
        "kv_bytes_per_token": profile.kv_bytes_per_token,
        "weight_bytes_per_gpu": profile.weight_bytes_per_gpu,
        "reserve_bytes_per_gpu": profile.reserve_bytes_per_gpu,
        "batch_time": _law(profile.batch_time),
        "mape_pct": profile.mape_pct,
        "p95_ape_pct": profile.p95_ape_pct,
        "range": [f"{name} {low:g} to {high:g}" for name, (low, high) in profile.range.items()] or None,
        "tokens_alone": "none was fitted" if profile.staircase is None else str(profile.staircase),
        "source": profile.source,
        "warnings": list(profile.warnings) or "none",
    }


def _law(law: Any) -> str | list[str]:
    """A law of a few coefficients as it is written, a table by some of its times."""
    from llmsched_env.machine.tabulated_law import TabulatedLaw

    if not isinstance(law, TabulatedLaw):
        return str(law)
    decodes = [f"{n}: {1e3 * float(law.seconds(n, 1000 * n)):.3g} ms" for n in (1, 8, 64, 512)]
    prompts = [f"{n}: {1e3 * float(law.seconds(n, 0, n * (n + 1) / 2)):.3g} ms" for n in (64, 512, 4096)]
    return [
        f"tables of {len(law.decode)} and {len(law.mixed)} knots",
        f"decodes after 1000 tokens each - {', '.join(decodes)}",
        f"tokens of one prompt - {', '.join(prompts)}",
    ]


def _table(rows: list[dict[str, Any]]) -> str:
    from llmsched_env.evaluation.rendering import rich_text
    from llmsched_env.evaluation.text_tables import TextColumn, fitting_tables

    headers = {
        "tensor_parallel": "TP",
        "gpu_memory_gb": "Memory\nGB",
        "kv_blocks": "KV\nblocks",
        f"{_REFERENCE} requests/s": f"{_REFERENCE}\nrequests/s",
        "origin": "Origin",
    }
    columns = [TextColumn(text, [_text(row[name]) for row in rows]) for name, text in headers.items()]
    names = TextColumn("Profile", [row["name"] for row in rows], "left")  # to be copied, so never folded
    return rich_text(*fitting_tables("", names, columns, longest_name=names.taken))


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
