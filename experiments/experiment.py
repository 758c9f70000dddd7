"""Experiments and their outcomes, and the files that outcomes are kept in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.check import Check
from llmsched_env.files import read_object, write_text


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as SVG text, and what it shows."""

    caption: str
    svg: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The checks and figures of an experiment."""

    checks: tuple[Check, ...]
    pictures: tuple[Picture, ...] = ()

    def save(self, path: Path) -> None:
        """Write to a JSON file, atomically."""
        write_text(path, json.dumps(asdict(self), ensure_ascii=False, indent=1))

    @classmethod
    def from_file(cls, path: Path) -> Outcome:
        """Read what `save` wrote."""
        record = read_object(path)
        return cls(
            tuple(Check(**check) for check in record["checks"]),
            tuple(Picture(**picture) for picture in record["pictures"]),
        )


@dataclass(frozen=True, slots=True)
class Experiment:
    """A part of a paper that can be reproduced.

    Attributes:
        name: of its file, and of `llmsched reproduce --only`.
        title: heading in the report.
        about: what is run and what is claimed, in a few sentences.
        run: runs it.
    """

    name: str
    title: str
    about: str
    run: Callable[[], Outcome]
