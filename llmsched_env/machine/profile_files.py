"""Profile files: what calibration writes, and tables of many profiles with several fitted forms each.

A profile holds the laws `roofline`, `staircase` and `hinge` in milliseconds, the `form` to use, `mape_pct`, and, where
they are known, sizes of memory in bytes.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from llmsched_env.files import read_object
from llmsched_env.validation import check_choice, check_integer, check_number

FORMS = {
    "roofline": ("c", "a_tok", "a_tok_over", "b0", "a_kv", "a_attn", "a_ctx"),
    "staircase": ("c", "a", "b0"),
    "hinge": ("c", "a", "b0"),
}
_MEMORY = ("gpu_memory_bytes", "weight_bytes_per_gpu", "kv_bytes_per_token", "reserve_bytes_per_gpu")

Numbers = dict[str, Any]


def read_profile(place: str) -> tuple[str, Numbers]:
    """Read a profile from "path" or "path#name"; returns its name and its numbers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a profile; naming the key, the value and what is allowed.
    """
    path, _, name = place.partition("#")
    numbers = read_object(path)
    if "profiles" in numbers:
        profiles = numbers["profiles"]
        if not name and len(profiles) > 1:
            raise ValueError(f"{path} holds {len(profiles)} profiles: name one, as in '{path}#{next(iter(profiles))}'")
        name = check_choice(f"profile of {path}", name or next(iter(profiles)), profiles)
        numbers = profiles[name]
    return name or Path(path).stem, _checked(f"{path}{'#' + name if name else ''}", _flat(numbers))


def write_profile(path: Path, numbers: Numbers) -> None:
    """Write a profile as `read_profile` reads it."""
    path.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def law_in_ms(law: Any) -> dict[str, float]:
    """A batch-time law as profile files hold it."""
    return {field.name: getattr(law, field.name) * (1 if field.name == "b0" else 1e3) for field in fields(law)}


def _flat(numbers: Numbers) -> Numbers:
    """A profile of a table with several fits, in the form that calibration writes."""
    if "forms" not in numbers:
        return numbers
    forms, curve, memory = numbers["forms"], numbers.get("token_curve", {}), numbers.get("memory", {})
    roofline = forms["roofline"]
    hinge = dict(curve.get("piecewise_best") or forms["piecewise"]["coef"])
    if hinge["b0"] == 0:  # the same for whole tokens
        hinge |= {"b0": 1, "c": hinge["c"] + hinge["a"]}
    kv = memory.get("kv_bytes_per_token", memory.get("kv_bytes_per_token_all_gpus"))
    sizes = {key: memory.get(key) for key in _MEMORY} | {"kv_bytes_per_token": kv}
    return {
        **{key: numbers[key] for key in ("model", "gpu", "tensor_parallel", "source") if key in numbers},
        "roofline": roofline["coef"],
        "staircase": curve.get("staircase_b0_128") or forms["staircase"]["coef"],
        "hinge": hinge,
        "mape_pct": roofline["fit"]["mape_pct"],
        **{key: round(size) for key, size in sizes.items() if size is not None},
    }


def _checked(place: str, numbers: Numbers) -> Numbers:
    """The keys that a profile is made of, each checked."""
    result: Numbers = {"form": check_choice(f"{place}: form", numbers.get("form", "roofline"), FORMS)}
    for form, keys in FORMS.items():
        law = numbers.get(form)
        if not isinstance(law, dict) or not set(keys) <= law.keys():
            raise ValueError(f"{place}: {form} must be an object with {', '.join(keys)}, got {repr(law)[:80]}")
        result[form] = {key: check_number(f"{place}: {form}.{key}", law[key]) for key in keys if key != "b0"}
        result[form]["b0"] = check_integer(f"{place}: {form}.b0", law["b0"], at_least=1)
    for key in ("model", "gpu", "source"):
        result[key] = str(numbers.get(key, "unknown"))
    result["tensor_parallel"] = check_integer(
        f"{place}: tensor_parallel", numbers.get("tensor_parallel", 1), at_least=1
    )
    result["mape_pct"] = check_number(f"{place}: mape_pct", numbers.get("mape_pct"), at_least=0)  # type: ignore[arg-type]
    sizes = [key for key in _MEMORY if numbers.get(key) is not None]
    if sizes and len(sizes) < len(_MEMORY):
        raise ValueError(f"{place} must state all of {', '.join(_MEMORY)} or none, got {', '.join(sizes)}")
    for key in (*_MEMORY, "kv_tokens"):
        value = numbers.get(key)
        low = 0 if key == "reserve_bytes_per_gpu" else 1
        result[key] = None if value is None else check_integer(f"{place}: {key}", value, at_least=low)
    return result
