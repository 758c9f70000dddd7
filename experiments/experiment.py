"""What an experiment is, what it yields, and how that is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.check import Check


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as SVG text, and what it shows."""

    caption: str
    svg: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an experiment yields."""

    checks: tuple[Check, ...]
    pictures: tuple[Picture, ...] = ()

    def save(self, path: Path) -> None:
        """Write to a JSON file, all or nothing."""
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8")
        partial.replace(path)

    @classmethod
    def from_file(cls, path: Path) -> Outcome:
        """Read what `save` wrote."""
        record = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            tuple(Check(**check) for check in record["checks"]),
            tuple(Picture(**picture) for picture in record["pictures"]),
        )


@dataclass(frozen=True, slots=True)
class Experiment:
    """A part of a paper that can be run.

    Attributes:
        name: of its file, and of `reproduce.py --only`.
        title: heading in the report.
        about: what is run and what is claimed about it, in a few sentences.
        run: does it.
    """

    name: str
    title: str
    about: str
    run: Callable[[], Outcome]
