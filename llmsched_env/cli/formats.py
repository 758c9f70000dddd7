"""How values are written on the command line and in TOML files: one format for each kind, both ways."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from llmsched_env.slo import SLO
from llmsched_env.validation import check_number

_OUTSIDE_BRACKETS = re.compile(r",(?![^()]*\))")


def names(text: str) -> tuple[str, ...]:
    """Names separated by commas, each with parameters in brackets if wanted: `orca,sarathi(token_budget=256)`.

    Raises:
        ValueError: if one is empty or its bracket is not closed.
    """
    items = tuple("".join(item.split()) if "(" in item else item.strip() for item in _OUTSIDE_BRACKETS.split(text))
    if not all(items) or any(item.count("(") != item.count(")") for item in items):
        raise ValueError(f"{text!r} must be names separated by commas, like orca,sarathi(token_budget=256)")
    return items


def loads(text: str) -> tuple[float | Literal["recorded"], ...]:
    """Numbers above 0 and `recorded`, separated by commas.

    Raises:
        ValueError: for anything else.
    """
    return tuple("recorded" if item.strip() == "recorded" else _load(item, text) for item in text.split(","))


def limits(text: str) -> SLO:
    """Limits in seconds: `ttft=1,tpot=0.05,e2el=30`, or some of the three.

    Raises:
        ValueError: for an unknown name, or a limit that is not a number above 0.
    """
    known = [field.name for field in dataclasses.fields(SLO)]
    try:
        found = {name: float(limit) for name, limit in pairs(text).items()}
    except ValueError:
        found = {}
    if not found or not found.keys() <= set(known):
        raise ValueError(f"{text!r} must be like ttft=1,tpot=0.05: limits of {', '.join(known)} in seconds")
    return SLO(**found)


def quality(text: str) -> dict[str, float]:
    """A measure of predictions and its value: `kendall=0.56`, `spearman=0.7` or `log_sd=0.5`.

    Raises:
        ValueError: for anything else.
    """
    measure, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        measure, value = "", math.nan
    if measure not in ("kendall", "spearman", "log_sd"):
        raise ValueError(f"{text!r} must be like kendall=0.56, spearman=0.7 or log_sd=0.5")
    return {measure: value}


def bounds(text: str) -> dict[str, float]:
    """Limits in seconds by name: `p95_ttft=0.5,p95_tpot=0.05`.

    Raises:
        ValueError: for anything else.
    """
    try:
        return {name: float(value) for name, value in pairs(text).items()}
    except ValueError:
        raise ValueError(f"{text!r} must be limits in seconds like p95_ttft=0.5,p95_tpot=0.05") from None


def pairs(text: str) -> dict[str, str]:
    """`NAME=VALUE` pairs separated by commas.

    Raises:
        ValueError: for anything else.
    """
    found = {}
    for item in names(text):
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{text!r} must be NAME=VALUE pairs separated by commas; {item!r} is none")
        found[name] = value
    return found


def numbers(text: str) -> tuple[float, ...]:
    """Numbers separated by commas.

    Raises:
        ValueError: for anything else.
    """
    try:
        return tuple(float(item) for item in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} must be numbers separated by commas") from None


def settings(text: str) -> dict[str, Any]:
    """Values by name: `ent_coef=0.01,net_arch=64:64,reference=true`; a colon separates the items of a list.

    Raises:
        ValueError: for anything but NAME=VALUE pairs.
    """
    return {name: _value(value) for name, value in pairs(text).items()}


def _value(text: str) -> Any:
    if ":" in text:
        return tuple(map(_value, text.split(":")))
    if text in ("true", "false"):
        return text == "true"
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            pass
    return text


def text_of(value: Any) -> str:
    """The text from which the command line reads this value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, SLO):
        return text_of({k: v for k, v in dataclasses.asdict(value).items() if math.isfinite(v)})
    if isinstance(value, Mapping):
        return ",".join(f"{name}={_text_in_pair(own)}" for name, own in value.items())
    if isinstance(value, tuple | list):
        return ",".join(map(text_of, value))
    return str(value)


def _text_in_pair(value: Any) -> str:
    return ":".join(map(text_of, value)) if isinstance(value, tuple | list) else text_of(value)


def converter(parse: Callable[[str], Any]) -> Callable[[Any, Sequence[Any]], Any]:
    """`parse` in the form in which cyclopts calls it."""

    def convert(type_: Any, tokens: Sequence[Any]) -> Any:
        return parse(tokens[0].value)

    return convert


def _load(item: str, text: str) -> float:
    try:
        number = float(item)
    except ValueError:
        raise ValueError(f"{text!r} must be numbers > 0 and 'recorded', separated by commas") from None
    return check_number("load", number, above=0)
