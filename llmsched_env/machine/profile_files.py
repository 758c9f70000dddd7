"""Profile files: what calibration and `make_profile` write, and tables of many profiles with several fitted forms each.

A profile holds the law to use in milliseconds under the name of its `form`, laws of tokens alone (`staircase`, `hinge`)
if there are any, `mape_pct`, and what else is known: sizes of memory in bytes, `kv_tokens`, `max_model_len`, and how it
came about (`p95_ape_pct`, `range`, `made_with`, `warnings`). One that was calibrated to an engine has its
`host_overhead_ms` (a step, a request in it) and `step_noise`, and maybe the law that schedulers take its own for,
`believed`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from llmsched_env.files import read_object, write_text
from llmsched_env.validation import check_choice, check_integer, check_number, shown

FORMS = {
    "roofline": ("c", "a_tok", "a_tok_over", "b0", "a_kv", "a_attn", "a_ctx"),
    "staircase": ("c", "a", "b0"),
    "hinge": ("c", "a", "b0"),
    "tabulated": ("decode", "mixed", "a_seq", "a_kv_decode", "a_kv", "a_attn", "a_ctx"),
}
TOKENS_ALONE = ("staircase", "hinge")
_TABLES = ("decode", "mixed")  # lists of [tokens, ms]
MEMORY = ("gpu_memory_bytes", "weight_bytes_per_gpu", "kv_bytes_per_token", "reserve_bytes_per_gpu")
_WHOLE = {  # the least value of each
    "gpu_memory_bytes": 1,
    "weight_bytes_per_gpu": 1,
    "kv_bytes_per_token": 1,
    "reserve_bytes_per_gpu": 0,
    "kv_tokens": 1,
    "max_model_len": 2,
}

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
        if not isinstance(profiles, dict) or not profiles:
            raise ValueError(f"{path}: profiles must be objects by name, got {shown(profiles)}")
        if not name and len(profiles) > 1:
            raise ValueError(f"{path} holds {len(profiles)} profiles: name one, as in '{path}#{next(iter(profiles))}'")
        name = check_choice(f"profile of {path}", name or next(iter(profiles)), profiles)
        numbers = profiles[name]
        if not isinstance(numbers, dict):
            raise ValueError(f"{path}#{name} must be an object, got {shown(numbers)}")
    return name or Path(path).stem, _checked(f"{path}{'#' + name if name else ''}", _flat(numbers, path))


def write_profile(path: Path, numbers: Numbers) -> None:
    """Write a profile as `read_profile` reads it."""
    write_text(path, json.dumps(numbers, indent=1) + "\n")


def law_in_ms(law: Any) -> Numbers:
    """A batch-time law as profile files hold it."""
    return {field.name: _in_ms(field.name, getattr(law, field.name)) for field in fields(law)}


def law_in_seconds(law: Numbers) -> Numbers:
    """The arguments of a law from what profile files hold."""
    return {name: _in_seconds(name, value) for name, value in law.items()}


def host_in_ms(host: tuple[float, float]) -> list[float]:
    """Host time (a step, a request in it) as profile files hold it."""
    return [1e3 * part for part in host]


def host_seconds(host: Sequence[float]) -> tuple[float, float]:
    """The same from what they hold."""
    return host[0] / 1e3, host[1] / 1e3


def _in_ms(name: str, value: Any) -> Any:
    if name in _TABLES:
        return [[tokens, seconds * 1e3] for tokens, seconds in value]
    return value if name == "b0" else value * 1e3


def _in_seconds(name: str, value: Any) -> Any:
    if name in _TABLES:
        return tuple((tokens, ms / 1e3) for tokens, ms in value)
    return value if name == "b0" else value / 1e3


def _flat(numbers: Numbers, path: str) -> Numbers:
    """A profile of a table with several fits, in the form that calibration writes."""
    if "forms" not in numbers:
        return numbers
    forms, curve, memory = (_object(numbers.get(key, {}), path, key) for key in ("forms", "token_curve", "memory"))

    def law(name: str) -> Numbers:
        return _object(_object(forms.get(name), path, f"forms.{name}").get("coef"), path, f"forms.{name}.coef")

    hinge = _object(curve.get("piecewise_best") or law("piecewise"), path, "token_curve.piecewise_best")
    if hinge.get("b0") == 0:  # the same for whole tokens
        c, a = (check_number(f"{path}: forms.piecewise.{key}", hinge.get(key)) for key in "ca")  # type: ignore[arg-type]
        hinge = hinge | {"b0": 1, "c": c + a}
    kv = memory.get("kv_bytes_per_token", memory.get("kv_bytes_per_token_all_gpus"))
    sizes = {key: memory.get(key) for key in MEMORY} | {"kv_bytes_per_token": kv}
    quality = _object(_object(forms.get("roofline"), path, "forms.roofline").get("fit"), path, "forms.roofline.fit")
    return {
        **{key: numbers[key] for key in ("model", "gpu", "tensor_parallel", "source") if key in numbers},
        "roofline": law("roofline"),
        "staircase": curve.get("staircase_b0_128") or law("staircase"),
        "hinge": hinge,
        "mape_pct": quality.get("mape_pct"),
        **{key: round(check_number(f"{path}: memory.{key}", size)) for key, size in sizes.items() if size is not None},
    }


def _object(value: Any, path: str, key: str) -> Numbers:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {key} must be an object, got {shown(value)}")
    return value


def _checked(place: str, numbers: Numbers) -> Numbers:
    """The keys that a profile is made of, each checked."""
    form = check_choice(f"{place}: form", numbers.get("form", "roofline"), FORMS)
    laws = [form, *(own for own in TOKENS_ALONE if own != form and numbers.get(own) is not None)]
    result: Numbers = {"form": form} | {own: _checked_law(f"{place}: {own}", own, numbers.get(own)) for own in laws}
    for key in ("model", "gpu", "source"):
        result[key] = str(numbers.get(key, "unknown"))
    for key in ("tensor_parallel", "expert_parallel"):
        result[key] = check_integer(f"{place}: {key}", numbers.get(key, 1), at_least=1, at_most=10**6)
    result["mape_pct"] = check_number(f"{place}: mape_pct", numbers.get("mape_pct"), at_least=0)  # type: ignore[arg-type]
    p95 = numbers.get("p95_ape_pct")
    result["p95_ape_pct"] = None if p95 is None else check_number(f"{place}: p95_ape_pct", p95, at_least=0)
    sizes = [key for key in MEMORY if numbers.get(key) is not None]
    if sizes and len(sizes) < len(MEMORY):
        raise ValueError(f"{place} must state all of {', '.join(MEMORY)} or none, got {', '.join(sizes)}")
    for key, low in _WHOLE.items():
        value = numbers.get(key)
        result[key] = None if value is None else check_integer(f"{place}: {key}", value, at_least=low, at_most=10**12)
    for key in ("range", "made_with"):
        value = numbers.get(key, {})
        if not isinstance(value, dict):
            raise ValueError(f"{place}: {key} must be an object, got {shown(value)}")
        result[key] = value
    result["range"] = {key: _checked_pair(f"{place}: range.{key}", pair) for key, pair in result["range"].items()}
    result["host_overhead_ms"] = _checked_pair(
        f"{place}: host_overhead_ms", numbers.get("host_overhead_ms", (0.0, 0.0))
    )
    result["step_noise"] = check_number(f"{place}: step_noise", numbers.get("step_noise", 0.0), at_least=0)
    if (believed := numbers.get("believed")) is not None:
        result["believed"] = _checked_belief(f"{place}: believed", believed)
    notes = numbers.get("warnings", [])
    if not isinstance(notes, list):
        raise ValueError(f"{place}: warnings must be a list of sentences, got {shown(notes)}")
    result["warnings"] = tuple(map(str, notes))
    return result


def _checked_law(place: str, form: str, law: Any) -> Numbers:
    keys = FORMS[form]
    if not isinstance(law, dict) or not set(keys) <= law.keys():
        raise ValueError(f"{place} must be an object with {', '.join(keys)}, got {shown(law)}")
    result: Numbers = {}
    for key in keys:
        if key in _TABLES:
            if not isinstance(law[key], list):
                raise ValueError(f"{place}.{key} must be a list of [tokens, ms], got {shown(law[key])}")
            result[key] = [_checked_pair(f"{place}.{key}[{k}]", pair) for k, pair in enumerate(law[key])]
        elif key == "b0":
            result[key] = check_integer(f"{place}.b0", law[key], at_least=1, at_most=10**9)
        else:
            result[key] = check_number(f"{place}.{key}", law[key])
    return result


def _checked_belief(place: str, belief: Any) -> Numbers:
    if not isinstance(belief, dict):
        raise ValueError(f"{place} must be an object with form and the numbers of the law, got {shown(belief)}")
    form = check_choice(f"{place}.form", belief.get("form", ""), FORMS)
    host = _checked_pair(f"{place}.host_overhead_ms", belief.get("host_overhead_ms", (0.0, 0.0)))
    return {"form": form, "host_overhead_ms": host, **_checked_law(place, form, belief)}


def _checked_pair(place: str, pair: Any) -> tuple[float, float]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError(f"{place} must be two numbers, got {shown(pair)}")
    return check_number(f"{place}[0]", pair[0]), check_number(f"{place}[1]", pair[1])
