"""What a command answers, and how it is printed: as text, as JSON or as CSV."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmsched_env.cli.options import PrintOptions


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a command.

    Attributes:
        text: for a person.
        rows: the numbers: for CSV, and under "rows" for JSON. Rows of equal keys.
        facts: what JSON has beside the rows, such as the path of the report.
        status: exit status.
    """

    text: str
    rows: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    status: int = 0


def print_answer(answer: Answer, options: PrintOptions | None) -> None:
    """Print to stdout in the format that the options name."""
    if options is not None and options.json:
        print(json.dumps(_plain({**answer.facts, "rows": list(answer.rows)}), indent=1, ensure_ascii=False))
    elif options is not None and options.csv:
        names = list(dict.fromkeys(name for row in answer.rows for name in row))
        writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in answer.rows)
    else:
        print(answer.text)


def wants_color(options: PrintOptions) -> bool:
    """Whether tables are printed in colour: to a terminal, as text."""
    return sys.stdout.isatty() and not (options.json or options.csv)


def _plain(value: Any) -> Any:
    """The value as JSON has it: no number for nan and infinity, text for paths."""
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.item() if hasattr(value, "item") else str(value)
