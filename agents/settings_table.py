"""The tables of tuned hyper-parameters in docs/learning.md; `python -m agents.settings_table` writes them there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from agents.settings import TUNED, Settings
from llmsched_env.evaluation.rendering import markdown_table
from llmsched_env.files import write_text

PAGE = Path(__file__).resolve().parents[1] / "docs/learning.md"
MARKED = re.compile(r"(?<=<!-- settings -->\n).*(?=<!-- end of settings -->)", re.DOTALL)
"""Where the tables stand in the page."""
_TITLES = {
    "PPOSettings": "PPO and MaskablePPO",
    "DQNSettings": "DQN",
    "ESSettings": "Evolution strategies",
    "IndexSettings": "Evolution strategies and coordinate search",
}


def settings_tables() -> str:
    """For each kind of settings a Markdown table: a row for each hyper-parameter, a column for each environment."""
    kinds: dict[type[Settings], dict[str, Settings]] = {}
    for (env, _), settings in TUNED.items():
        kinds.setdefault(type(settings), {})[env] = settings
    lines = []
    for kind, by_env in kinds.items():
        rows = [
            [f"`{field.name}`", *(_text(getattr(own, field.name)) for own in by_env.values())] for field in fields(kind)
        ]
        lines += [f"{_TITLES[kind.__name__]}:", "", *markdown_table(["`--learner`", *by_env], rows), ""]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ":".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    write_text(PAGE, MARKED.sub(lambda _: settings_tables(), PAGE.read_text(encoding="utf-8")))
